extension Images {
    /// The images at these positions as float32 [B, C, H, W] in [0, 1].
    func pixels(at positions: some Collection<Int>, into out: UnsafeMutablePointer<Float>) {
        var target = out
        pixels.withUnsafeBufferPointer { pixels in
            for position in positions {
                for channel in 0..<channels {
                    var source = position * size + channel
                    for _ in 0..<height * width {
                        target.pointee = Float(pixels[source]) / 255
                        target += 1
                        source += channels
                    }
                }
            }
        }
    }
}

/// Logits of images in fixed batches, by any program that takes state and x and gives logits. Owns the arrays of
/// the batch and the logits, so that its session sees the same ones every time.
final class BatchClassifier {
    private let program: Program
    private let session: any Session
    private let x: FloatArray
    private let out: FloatArray

    init(program: Program, session: any Session) {
        (self.program, self.session) = (program, session)
        x = FloatArray(shape: program.inputs.first { $0.role == "batch" }?.shape ?? [])
        out = FloatArray(shape: program.outputs.first?.shape ?? [])
    }

    /// A row of logits for each position; a short batch is filled cyclically.
    ///
    /// `state` gives the array of a value by its name; `between` is called before each batch.
    /// - Throws: `ClueError` when the program fails, and what `between` throws.
    func logits(
        _ images: Images, positions: [Int], state: (String) -> FloatArray, between: () throws -> Void = {}
    ) throws -> [[Float]] {
        let (batch, classes) = (program.batch, out.shape.last ?? 0)
        let inputs = program.inputs.map { $0.role == "state" ? state($0.binds) : x }
        var rows: [[Float]] = []
        rows.reserveCapacity(positions.count)
        for start in stride(from: 0, to: positions.count, by: batch) {
            try between()
            let filled = (start..<start + batch).map { positions[$0 % positions.count] }
            images.pixels(at: filled, into: x.pointer)
            try session.run(inputs: inputs, outputs: [out])
            for row in 0..<min(batch, positions.count - start) {
                rows.append(Array(out.elements[row * classes..<(row + 1) * classes]))
            }
        }
        return rows
    }
}

extension Sequence<Float> {
    /// The place of the largest element, of equal ones the first.
    var best: Int {
        var (best, value) = (0, -Float.infinity)
        for (place, element) in enumerated() where element > value { (best, value) = (place, element) }
        return best
    }
}
