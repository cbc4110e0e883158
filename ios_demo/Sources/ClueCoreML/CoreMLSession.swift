#if canImport(CoreML)
    import ClueCore
    import CoreML
    import Foundation

    /// A loaded model. The arrays of the runtime are handed over as they are: Core ML reads the inputs where they lie and is asked to
    /// write the outputs where they belong.
    final class CoreMLSession: Session {
        private let model: MLModel
        private let program: Program
        private var wrapped: [ObjectIdentifier: (array: FloatArray, features: MLMultiArray)] = [:]

        /// - Throws: ``ClueError`` when the model's inputs and outputs are not the program's.
        init(_ model: MLModel, program: Program) throws {
            (self.model, self.program) = (model, program)
            try check("input", program.inputs, model.modelDescription.inputDescriptionsByName)
            try check("output", program.outputs, model.modelDescription.outputDescriptionsByName)
        }

        func run(inputs: [FloatArray], outputs: [FloatArray]) throws {
            // arrays that are made anew for each batch must not pile up; never within a run, whose own may be as many as the ports
            if wrapped.count > 4 * (inputs.count + outputs.count) { wrapped.removeAll() }
            do {
                try autoreleasepool {
                    var features: [String: MLFeatureValue] = [:]
                    for (port, array) in zip(program.inputs, inputs) { features[port.name] = MLFeatureValue(multiArray: try wrap(array)) }
                    var backings: [String: MLMultiArray] = [:]
                    for (port, array) in zip(program.outputs, outputs) { backings[port.name] = try wrap(array) }
                    let options = MLPredictionOptions()
                    options.outputBackings = backings
                    let answer = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: features), options: options)
                    for (port, array) in zip(program.outputs, outputs) {
                        guard let result = answer.featureValue(for: port.name)?.multiArrayValue else {
                            throw ClueError(.engine, "Core ML gave no output \(port.name) of the program \(program.name)")
                        }
                        // it may refuse a backing, and then its own array has the result
                        if result !== backings[port.name] { try copy(result, to: array, port: port) }
                    }
                }
            } catch let error as ClueError {
                throw error
            } catch {
                throw ClueError(.engine, "the program \(program.name) failed in Core ML: \(error.localizedDescription)")
            }
        }

        /// The array as Core ML's, over the same memory. The state's few arrays come again at each step, so they are kept.
        private func wrap(_ array: FloatArray) throws -> MLMultiArray {
            let key = ObjectIdentifier(array)
            if let known = wrapped[key] { return known.features }
            // Core ML has no arrays without axes
            let shape = array.shape.isEmpty ? [1] : array.shape
            var strides = [Int](repeating: 1, count: shape.count)
            for axis in shape.indices.dropLast().reversed() { strides[axis] = strides[axis + 1] * shape[axis + 1] }
            let features = try MLMultiArray(
                dataPointer: UnsafeMutableRawPointer(array.pointer), shape: shape.map { NSNumber(value: $0) }, dataType: .float32,
                strides: strides.map { NSNumber(value: $0) }, deallocator: nil)
            wrapped[key] = (array, features)
            return features
        }

        /// Copy a result, whose rows may be padded, into the runtime's array.
        private func copy(_ result: MLMultiArray, to array: FloatArray, port: ProgramPort) throws {
            guard result.dataType == .float32, result.count == array.count else {
                throw ClueError(.engine, "Core ML gave the output \(port.name) of the program \(program.name) in another form")
            }
            let shape = result.shape.map(\.intValue)
            let strides = result.strides.map(\.intValue)
            result.withUnsafeBytes { bytes in
                let source = bytes.bindMemory(to: Float.self)
                var index = [Int](repeating: 0, count: shape.count)
                for element in 0..<array.count {
                    array.pointer[element] = source[zip(index, strides).reduce(0) { $0 + $1.0 * $1.1 }]
                    for axis in shape.indices.reversed() {
                        index[axis] += 1
                        if index[axis] < shape[axis] { break }
                        index[axis] = 0
                    }
                }
            }
        }

        private func check(_ kind: String, _ ports: [ProgramPort], _ found: [String: MLFeatureDescription]) throws {
            for port in ports {
                let expected = port.shape.isEmpty ? [1] : port.shape
                let constraint = found[port.name]?.multiArrayConstraint
                guard let constraint, constraint.dataType == .float32, constraint.shape.map(\.intValue) == expected else {
                    let has = constraint.map { "of the shape \($0.shape.map(\.intValue))" } ?? "missing"
                    throw ClueError(
                        .engine,
                        "the Core ML package of \(program.name): \(kind) \(port.name) is \(has) and must be float32 of the shape "
                            + "\(expected); export the bundle again")
                }
            }
            guard found.count == ports.count else {
                let extra = Set(found.keys).subtracting(ports.map(\.name)).sorted().joined(separator: ", ")
                throw ClueError(.engine, "the Core ML package of \(program.name) has more than the manifest: \(kind) \(extra)")
            }
        }
    }
#endif
