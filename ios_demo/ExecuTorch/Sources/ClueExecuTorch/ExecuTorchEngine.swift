#if canImport(ExecuTorch)
    import ClueCore
    import ExecuTorch
    import Foundation

    /// Runs a bundle's `programs.pte` with ExecuTorch's `Module`: a method for each program, stateless, with the weights going in and out.
    ///
    /// The app links ExecuTorch's backends with `-all_load`, or they do not register themselves (docs/ios.md).
    public struct ExecuTorchEngine: Engine {
        public let name = "executorch"
        /// Of the package that ExecuTorch/Package.swift names; the binding does not tell it.
        public let version = "1.5.1"
        public let backend = "xnnpack"
        /// ExecuTorch has one pool for the process and sizes it by the processors.
        public let threads = max(1, ProcessInfo.processInfo.processorCount)

        public init() {}

        /// - Throws: ``ClueError`` of kind `engine` when the file cannot be read or the method's ports are not the program's.
        public func load(_ file: URL, program: Program) throws -> any Session {
            // a module may be used by one thread at a time, as a session; the mapped file is shared
            let module = Module(filePath: file.path, loadMode: .mmap)
            do {
                try module.load(program.name)
                return try ExecuTorchSession(module, program: program)
            } catch let error as ClueError {
                throw error
            } catch {
                throw ClueError(
                    .engine, "\(file.lastPathComponent) has no method \(program.name) that ExecuTorch loads: \(error.localizedDescription)")
            }
        }
    }

    /// A loaded method over the runtime's own memory.
    final class ExecuTorchSession: Session {
        private let module: Module
        private let program: Program
        /// Outputs whose memory the program itself has planned: their content is copied.
        private let planned: [Bool]

        init(_ module: Module, program: Program) throws {
            (self.module, self.program) = (module, program)
            let found = try module.methodMetadata(program.name)
            try Self.check(program, "input", program.inputs, found.inputValueTags.count, found.inputTensorMetadata)
            try Self.check(program, "output", program.outputs, found.outputValueTags.count, found.outputTensorMetadata)
            planned = program.outputs.indices.map { found.outputTensorMetadata[$0]?.isMemoryPlanned ?? true }
        }

        func run(inputs: [FloatArray], outputs: [FloatArray]) throws {
            do {
                for (index, array) in outputs.enumerated() where !planned[index] {
                    try module.setOutput(tensor(array), for: program.name, at: index)
                }
                let results: [ExecuTorch.Value] = try module.execute(program.name, inputs.map { tensor($0) as ValueConvertible })
                guard results.count == outputs.count else {
                    throw ClueError(.engine, "ExecuTorch gave \(results.count) outputs of \(program.name), not \(outputs.count)")
                }
                for (index, array) in outputs.enumerated() where planned[index] {
                    guard let result = results[index].anyTensor, result.count == array.count, result.dataType == .float else {
                        throw ClueError(.engine, "ExecuTorch gave output \(index) of \(program.name) in another form")
                    }
                    result.bytes { bytes, count, _ in
                        array.pointer.update(from: bytes.assumingMemoryBound(to: Float.self), count: count)
                    }
                }
            } catch let error as ClueError {
                throw error
            } catch {
                throw ClueError(.engine, "the program \(program.name) failed in ExecuTorch: \(error.localizedDescription)")
            }
        }

        private func tensor(_ array: FloatArray) -> AnyTensor {
            AnyTensor(
                bytesNoCopy: UnsafeMutableRawPointer(array.pointer), shape: array.shape, dataType: .float, shapeDynamism: .static)
        }

        private static func check(
            _ program: Program, _ kind: String, _ ports: [ProgramPort], _ count: Int, _ found: [Int: TensorMetadata]
        ) throws {
            guard count == ports.count else {
                throw ClueError(
                    .engine, "the method \(program.name) has \(count) \(kind)s and the manifest \(ports.count); export the bundle again")
            }
            for (index, port) in ports.enumerated() where found[index]?.dataType != .float || found[index]?.shape != port.shape {
                let has = found[index].map { "of the shape \($0.shape)" } ?? "no array"
                throw ClueError(
                    .engine,
                    "the method \(program.name): \(kind) \(port.name) is \(has) and must be float32 of the shape \(port.shape); "
                        + "export the bundle again")
            }
        }
    }
#endif
