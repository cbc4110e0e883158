/// Images made of a request's samples and noise, on which old and new weights are compared without any image of
/// the other classes (docs/runtime-contract.md, "The retain-free signal"). Whole numbers only.
enum Probes {
    private enum Kind {
        case mix(grid: Int)
        case tiles(grid: Int)
        case difference
    }

    private static let kinds: [Kind] = [
        .mix(grid: 4), .mix(grid: 2), .tiles(grid: 2), .tiles(grid: 4), .difference,
    ]

    /// `count` probes (rounded down to a multiple of the five kinds, at least one of each) from at least one
    /// sample, kind after kind.
    static func make(_ images: Images, seed: UInt64, count: Int) -> Images {
        let each = max(1, count / kinds.count)
        var made: [UInt8] = []
        made.reserveCapacity(kinds.count * each * images.size)
        for (number, kind) in kinds.enumerated() {
            let source = Philox(seed: seed, stream: Philox.Stream.probes, epoch: number)
            for position in 0..<each {
                let words = source.words(position: position, count: 4 + cells(kind, channels: images.channels))
                made += probe(kind, images, words)
            }
        }
        return Images(
            count: kinds.count * each, height: images.height, width: images.width, channels: images.channels,
            pixels: made)
    }

    private static func cells(_ kind: Kind, channels: Int) -> Int {
        switch kind {
        case .mix(let grid): grid * grid * channels
        case .tiles(let grid): grid * grid
        case .difference: 0
        }
    }

    private static func probe(_ kind: Kind, _ images: Images, _ words: [UInt32]) -> [UInt8] {
        func picked(_ word: Int) -> ArraySlice<UInt8> {
            let image = Philox.integer(words[word], images.count)
            return images.pixels[image * images.size..<(image + 1) * images.size]
        }
        let a = Array(picked(0))
        let (height, width, channels) = (images.height, images.width, images.channels)
        switch kind {
        case .mix(let grid):
            return a.indices.map { place in
                let (y, x, c) = (place / channels / width, place / channels % width, place % channels)
                let (row, column) = (y * grid / height, x * grid / width)
                let cell = (row * grid + column) * channels + c
                let colour = Int(words[4 + cell] >> 24)
                return UInt8((Int(a[place]) + colour + 1) >> 1)
            }
        case .tiles(let grid):
            let order = (0..<grid * grid).sorted { (words[4 + $0], $0) < (words[4 + $1], $1) }
            let (rows, columns) = (height / grid, width / grid)
            var made = a
            for (tile, source) in order.enumerated() {
                for row in 0..<rows {
                    let to = ((tile / grid * rows + row) * width + tile % grid * columns) * channels
                    let from = ((source / grid * rows + row) * width + source % grid * columns) * channels
                    for k in 0..<columns * channels { made[to + k] = a[from + k] }
                }
            }
            return made
        case .difference:
            return zip(a, picked(1)).map { UInt8(clamping: Int($0) - Int($1) + 128) }
        }
    }

    /// `kept`: percent of the probes whose best class is the same before and after, the forgotten classes left
    /// aside. `largestShareBefore` and `After`: percent that fell on one and the same of all classes.
    struct Comparison: Equatable {
        let probes: Int
        let kept: Double
        let largestShareBefore: Double
        let largestShareAfter: Double
    }

    /// Compare logits of the same probes; the first of equal logits is the best.
    static func compare(_ before: [[Float]], _ after: [[Float]], forgotten: Set<Int>) -> Comparison {
        func best(_ logits: [Float]) -> Int {
            logits.enumerated().map { forgotten.contains($0.offset) ? -Float.infinity : $0.element }.best
        }
        let kept = zip(before, after).count { best($0) == best($1) }
        return Comparison(
            probes: before.count, kept: 100 * Double(kept) / Double(before.count),
            largestShareBefore: largestShare(before), largestShareAfter: largestShare(after))
    }

    private static func largestShare(_ rows: [[Float]]) -> Double {
        let counts = Dictionary(rows.map { ($0.best, 1) }, uniquingKeysWith: +)
        return 100 * Double(counts.values.max() ?? 0) / Double(rows.count)
    }
}
