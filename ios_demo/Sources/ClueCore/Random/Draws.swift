/// Draws of contract/rng.md, sections 3, 4, 7 and 8. Sample b of a draw uses position `positions[b]`; element e of
/// its row-major array comes from block `offset + e / 4`.
extension Philox {
    /// Standard normal numbers, `count` for each position, into `out`.
    func normal(_ positions: some Sequence<Int>, count: Int, offset: Int = 0, into out: UnsafeMutablePointer<Float>) {
        fill(positions, count: count, offset: offset, into: out) { block in
            let (a, b) = BoxMuller.pair(block.words.0, block.words.1)
            let (c, d) = BoxMuller.pair(block.words.2, block.words.3)
            return (a, b, c, d)
        }
    }

    /// Uniform numbers in (low, high], rounded to float32.
    func uniform(
        _ positions: some Sequence<Int>, count: Int, low: Double, high: Double, offset: Int = 0,
        into out: UnsafeMutablePointer<Float>
    ) {
        let width = high - low
        func value(_ word: UInt32) -> Float {
            let u = Double(UInt64(word) + 1) * 0x1p-32
            let scaled = width * u
            return Float(low + scaled)
        }
        fill(positions, count: count, offset: offset, into: out) { block in
            (value(block.words.0), value(block.words.1), value(block.words.2), value(block.words.3))
        }
    }

    /// Whole numbers in 0 ..< n, `count` for a position.
    func integers(position: Int, count: Int, n: Int, offset: Int = 0) -> [Int] {
        words(position: position, count: count, offset: offset).map { Self.integer($0, n) }
    }

    @inline(__always)
    static func integer(_ word: UInt32, _ n: Int) -> Int { Int((UInt64(word) &* UInt64(n)) >> 32) }

    @inline(__always)
    private func fill(
        _ positions: some Sequence<Int>, count: Int, offset: Int, into out: UnsafeMutablePointer<Float>,
        _ convert: (Block) -> (Float, Float, Float, Float)
    ) {
        var row = out
        for position in positions {
            for number in 0..<(count + 3) / 4 {
                let four = convert(block(UInt32(offset + number), position: UInt32(position)))
                let e = 4 * number
                row[e] = four.0
                if e + 1 < count { row[e + 1] = four.1 }
                if e + 2 < count { row[e + 2] = four.2 }
                if e + 3 < count { row[e + 3] = four.3 }
            }
            row += count
        }
    }

    /// The order in which an epoch visits its n samples: a Fisher-Yates shuffle of 0 ..< n from the end.
    public static func permutation(seed: UInt64, epoch: Int, n: Int, stream: UInt32 = Stream.order) -> [Int] {
        var order = Array(0..<n)
        let words = Philox(seed: seed, stream: stream, epoch: epoch).words(position: 0, count: max(0, n - 1))
        for (t, word) in words.enumerated() {
            let i = n - 1 - t
            order.swapAt(i, integer(word, i + 1))
        }
        return order
    }

    /// How an image is moved in an epoch: the top and left edge of the crop in the padded image, and whether it
    /// is mirrored.
    struct Move: Equatable {
        let dy: Int
        let dx: Int
        let flip: Bool
    }

    static func move(seed: UInt64, epoch: Int, position: Int, pad: Int = 4) -> Move {
        let words = Philox(seed: seed, stream: Stream.augmentation, epoch: epoch).words(position: position, count: 3)
        let span = 2 * pad + 1
        return Move(dy: integer(words[0], span), dx: integer(words[1], span), flip: words[2] >> 31 == 1)
    }
}

extension RandomStream {
    /// One draw for each position into `out`, float32 [positions, *shape]; `turn` counts the iterations of the
    /// enclosing repeats.
    func draw(
        seed: UInt64, epoch: Int, positions: some Collection<Int>, turn: Int, into out: UnsafeMutablePointer<Float>
    ) {
        let oneHot = distribution == "onehot"
        let elements = (oneHot ? Array(shape.dropLast()) : shape).reduce(1, *)
        let offset = turn * ((elements + 3) / 4)
        let source = Philox(seed: seed, stream: stream, epoch: epoch)
        switch distribution {
        case "normal": source.normal(positions, count: elements, offset: offset, into: out)
        case "uniform":
            source.uniform(positions, count: elements, low: low, high: high, offset: offset, into: out)
        default:
            var row = out
            for position in positions {
                for label in source.integers(position: position, count: elements, n: classes, offset: offset) {
                    row.update(repeating: 0, count: classes)
                    row[label] = 1
                    row += classes
                }
            }
        }
    }
}

extension Images {
    /// Padded by `pad` black pixels on every side, cut out at the move's edges, then mirrored if it says so.
    /// One move for each image.
    func cropFlip(_ moves: [Philox.Move], pad: Int = 4) -> Images {
        var out = [UInt8](repeating: 0, count: pixels.count)
        for (image, move) in moves.enumerated() {
            for i in 0..<height {
                let y = i + move.dy - pad
                guard 0..<height ~= y else { continue }
                for j in 0..<width {
                    let x = (move.flip ? width - 1 - j : j) + move.dx - pad
                    guard 0..<width ~= x else { continue }
                    let target = ((image * height + i) * width + j) * channels
                    let source = ((image * height + y) * width + x) * channels
                    for c in 0..<channels { out[target + c] = pixels[source + c] }
                }
            }
        }
        return Images(count: count, height: height, width: width, channels: channels, pixels: out)
    }
}
