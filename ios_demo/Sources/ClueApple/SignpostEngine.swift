#if canImport(os)
    import ClueCore
    import Foundation
    import os

    /// An engine whose loads and runs show up in Instruments as intervals of the subsystem `io.cluemobile`.
    public struct SignpostEngine: Engine {
        private let engine: any Engine
        private let signposter = OSSignposter(subsystem: "io.cluemobile", category: "engine")

        public var name: String { engine.name }
        public var version: String { engine.version }
        public var backend: String { engine.backend }
        public var threads: Int { engine.threads }

        public init(_ engine: any Engine) { self.engine = engine }

        public func load(_ file: URL, program: Program) throws -> any Session {
            let interval = signposter.beginInterval("load", "\(program.name, privacy: .public)")
            defer { signposter.endInterval("load", interval) }
            return SignpostSession(try engine.load(file, program: program), program.name, signposter)
        }
    }

    private final class SignpostSession: Session {
        private let session: any Session
        private let program: String
        private let signposter: OSSignposter

        init(_ session: any Session, _ program: String, _ signposter: OSSignposter) {
            (self.session, self.program, self.signposter) = (session, program, signposter)
        }

        func run(inputs: [FloatArray], outputs: [FloatArray]) throws {
            let interval = signposter.beginInterval("run", "\(self.program, privacy: .public)")
            defer { signposter.endInterval("run", interval) }
            try session.run(inputs: inputs, outputs: outputs)
        }
    }
#endif
