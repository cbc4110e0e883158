#if canImport(CoreML)
    import ClueCore
    import CoreML
    import Foundation

    /// Runs a bundle's Core ML packages: one model for each program, the state as explicit float32 arrays that go in and come out.
    ///
    /// A package is compiled on the device when a program is first loaded, which takes seconds; what came of it is kept in `cache`
    /// under the package's hash and the system's version.
    public struct CoreMLEngine: Engine {
        /// Which processors may compute.
        public enum Units: String, Sendable {
            /// The one most likely to give the same numbers at every run.
            case cpu = "cpu"
            case cpuAndGPU = "cpu and gpu"
        }

        public let name = "coreml"
        /// Core ML is part of the system, so its version is the system's; with the backend, since other processors or another package may
        /// give other numbers, and a request must not go on with them.
        public var version: String { "\(SystemVersion.text), \(backend)" }
        public var backend: String { functions == nil ? units.rawValue : "\(units.rawValue), one package" }
        /// Core ML chooses itself; the processors of the device are what it can use.
        public let threads = max(1, ProcessInfo.processInfo.processorCount)

        private let units: Units
        private let cache: URL
        private let functions: URL?
        private let bundle: String

        /// - Parameters:
        ///   - bundle: an opened bundle, whose files were checked.
        ///   - cache: a private folder for compiled models, which may be emptied at any time.
        ///   - oneFile: from iOS 18 and macOS 15 on, take all programs from the package that has each as a function.
        /// - Throws: ``ClueError`` of kind `bundle` when `oneFile` is asked for and the bundle has no such package.
        public init(bundle: ClueBundle, cache: URL, units: Units = .cpu, oneFile: Bool = false) throws {
            let folder = "programs/coreml/programs_ios18.mlpackage"
            if oneFile, !bundle.files.keys.contains(where: { $0.hasPrefix("\(folder)/") }) {
                throw ClueError(.bundle, "the bundle \(bundle.name) has no \(folder): export it with --runtime coreml")
            }
            functions = oneFile ? bundle.root.appendingPathComponent(folder, isDirectory: true) : nil
            (self.bundle, self.cache, self.units) = (bundle.sha256, cache, units)
        }

        /// - Throws: ``ClueError`` of kind `engine` when the package cannot be compiled or its ports are not the program's.
        public func load(_ file: URL, program: Program) throws -> any Session {
            let package = functions ?? file
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units == .cpu ? .cpuOnly : .cpuAndGPU
            if functions != nil {
                guard #available(iOS 18, macOS 15, *) else {
                    throw ClueError(.engine, "functions of one Core ML package need iOS 18 or macOS 15: leave oneFile out")
                }
                configuration.functionName = program.name
            }
            do {
                let model = try MLModel(contentsOf: try compiled(package, program: program), configuration: configuration)
                return try CoreMLSession(model, program: program)
            } catch let error as ClueError {
                throw error
            } catch {
                throw ClueError(.engine, "\(package.lastPathComponent) cannot be loaded by Core ML: \(error.localizedDescription)")
            }
        }

        /// The compiled model of a package, from the cache where it is there.
        private func compiled(_ package: URL, program: Program) throws -> URL {
            guard let entry = program.files[name] else {
                throw ClueError(.bundle, "the program \(program.name) has no Core ML package: export the bundle with --runtime coreml")
            }
            let system = SystemVersion.text.map { $0.isLetter || $0.isNumber ? $0 : "_" }
            let content = functions == nil ? entry.sha256 : "functions-\(bundle)"
            let place = cache.appendingPathComponent("\(content)-\(String(system)).mlmodelc", isDirectory: true)
            let manager = FileManager.default
            if manager.fileExists(atPath: place.path) { return place }
            try manager.createDirectory(at: cache, withIntermediateDirectories: true)
            let made = try MLModel.compileModel(at: package)
            do {
                try manager.moveItem(at: made, to: place)
            } catch {
                // another thread may have been faster
                guard manager.fileExists(atPath: place.path) else { throw error }
                try? manager.removeItem(at: made)
            }
            return place
        }
    }
#endif
