import COnnxRuntime
import ClueCore
import Foundation

/// ONNX Runtime on the CPU: programs read and write the runtime's own arrays, nothing is copied each step.
public struct OrtEngine: Engine {
    public let name = "onnx"
    public let backend = "cpu"
    public let version: String
    public let threads: Int

    /// More than any device has; a mistyped number would otherwise start that many before it is noticed.
    private static let mostThreads = 256

    private let library: OrtLibrary

    /// `threads` inside an operator; all processors when nil.
    /// - Throws: `ClueError` for a number out of range, or a library that is too old.
    public init(threads: Int? = nil) throws {
        if let threads, !(1...Self.mostThreads).contains(threads) {
            throw ClueError(.invalid, "threads is \(threads): it must be from 1 to \(Self.mostThreads)")
        }
        library = try OrtLibrary.shared.get()
        version = library.version
        // not those that are active now: a request goes on with as many threads as it began with only
        self.threads = threads ?? max(1, ProcessInfo.processInfo.processorCount)
    }

    public func load(_ file: URL, program: Program) throws -> any Session {
        let session: OpaquePointer
        do {
            session = try open(file)
        } catch let error as ClueError {
            throw ClueError(.engine, "onnxruntime cannot load \(file.path): \(error.message)")
        }
        let made = OrtSession(library, session, program)
        try made.checkPorts(file)
        return made
    }

    private func open(_ file: URL) throws -> OpaquePointer {
        let api = library.api.pointee
        let options = try library.make { api.CreateSessionOptions($0) }
        defer { api.ReleaseSessionOptions(options) }
        try library.check(api.SetIntraOpNumThreads(options, Int32(threads)))
        try library.check(api.SetInterOpNumThreads(options, 1))
        try library.check(api.SetSessionExecutionMode(options, ORT_SEQUENTIAL))
        try library.check(api.SetSessionLogSeverityLevel(options, 3))  // errors only: they also arrive as statuses
        try library.check(api.AddSessionConfigEntry(options, "session.use_env_allocators", "1"))
        // Planned patterns hold one block of the size of all intermediates: no faster, and larger.
        try library.check(api.DisableMemPattern(options))
        return try library.make { api.CreateSession(library.environment, file.path, options, $0) }
    }
}
