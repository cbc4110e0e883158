import Foundation

/// How far an output of a program is from what eager PyTorch gave for the same inputs (contract/golden.md).
public struct GoldenResult: Equatable, Sendable {
    public let program: String
    public let output: String
    /// The largest difference over the largest expected value.
    public let error: Double
    public let tolerance: Double

    /// Whether the error is at most the tolerance.
    public var ok: Bool { error <= tolerance }
}

/// Runs every program on seeded inputs and compares.
public enum GoldenCheck {
    /// One result for each output of each program that the engine has a file for.
    /// - Throws: `ClueError` for an unusable program or golden file, or where the engine has no program at all.
    public static func check(_ bundle: ClueBundle, engine: any Engine) throws -> [GoldenResult] {
        var results: [GoldenResult] = []
        let own = bundle.programs.filter { $0.files[engine.name] != nil }
        for program in own.isEmpty ? bundle.programs : own {
            let stored = try WeightsFile(bundle.file(program.golden.file))
            let inputs = try inputs(bundle, program, stored)
            let outputs = program.outputs.map { FloatArray(shape: $0.shape) }
            try bundle.load(program.name, by: engine).run(inputs: inputs, outputs: outputs)
            for golden in program.golden.outputs {
                guard stored.shape(golden.port) != nil,
                    let index = program.outputs.firstIndex(where: { $0.name == golden.port })
                else { throw bundle.wrong("\(program.golden.file) has no output \(golden.port)") }
                let error = difference(outputs[index], try stored.read(golden.port), stride: golden.stride)
                results.append(
                    GoldenResult(
                        program: program.name, output: golden.port, error: error, tolerance: golden.tolerance))
            }
        }
        return results
    }

    /// The golden inputs of a program in the order of its ports; `stored` is its golden file.
    public static func inputs(
        _ bundle: ClueBundle, _ program: Program, _ stored: WeightsFile
    ) throws -> [FloatArray] {
        try program.inputs.enumerated().map { number, port in
            let array = FloatArray(shape: port.shape)
            let place = "golden input \(port.name) of program \(program.name)"
            var done = 0
            for (index, draw) in (program.golden.inputs[port.name] ?? []).enumerated() {
                guard done + draw.length <= array.count else { throw bundle.wrong("\(place) has too many elements") }
                let target = UnsafeMutableBufferPointer(rebasing: array.elements[done..<done + draw.length])
                if draw.distribution == "stored" {
                    let key = "input.\(port.name)"
                    guard stored.shape(key) != nil else { throw bundle.wrong("\(place) is not stored") }
                    let content = try stored.read(key)
                    guard content.count == draw.length else {
                        throw bundle.wrong("\(place) has \(content.count) elements")
                    }
                    _ = target.update(fromContentsOf: content)
                } else {
                    fill(target, draw, seed: program.golden.seed, port: number, index: index)
                }
                done += draw.length
            }
            guard done == array.count else { throw bundle.wrong("\(place) has \(done) elements") }
            return array
        }
    }

    private static func fill(
        _ out: UnsafeMutableBufferPointer<Float>, _ draw: GoldenDraw, seed: UInt64, port: Int, index: Int
    ) {
        guard let start = out.baseAddress, !out.isEmpty else { return }
        let source = Philox(seed: seed, stream: Philox.Stream.golden, epoch: port)
        switch draw.distribution {
        case "normal":
            source.normal([index], count: out.count, into: start)
            for i in out.indices {
                let scaled = draw.b * Double(out[i])
                out[i] = Float(draw.a + scaled)
            }
        case "uniform":
            source.uniform([index], count: out.count, low: draw.a, high: draw.b, into: start)
        case "bernoulli":
            source.uniform([index], count: out.count, low: 0, high: 1, into: start)
            for i in out.indices { out[i] = Double(out[i]) < draw.a ? 1 : 0 }
        case "constant": out.update(repeating: Float(draw.a))
        default:
            let width = Int(min(max(draw.a, 1), Double(out.count)))
            for i in out.indices { out[i] = i % width == i / width % width ? 1 : 0 }
        }
    }

    private static func difference(_ device: FloatArray, _ golden: FloatArray, stride step: Int) -> Double {
        let found = stride(from: 0, to: device.count, by: step).map { device.pointer[$0] }
        guard found.count == golden.count, found.allSatisfy(\.isFinite), golden.isFinite else { return .infinity }
        var (difference, scale) = (0.0, 0.0)
        for (one, other) in zip(found, golden) {
            difference = max(difference, abs(Double(one) - Double(other)))
            scale = max(scale, abs(Double(other)))
        }
        return scale > 0 ? difference / scale : difference > 0 ? .infinity : 0
    }
}
