import Foundation

/// What the runtime asks of an engine that executes programs.
public protocol Engine: Sendable {
    /// The key of the program files in the manifest.
    var name: String { get }
    /// The version of the library, for cost records and checkpoints.
    var version: String { get }
    /// What computes, for cost records: "cpu", "xnnpack", ...
    var backend: String { get }
    /// The number of threads inside an operator.
    var threads: Int { get }

    /// Load a program file (or folder).
    /// - Throws: `ClueError` when it cannot be read or its ports are not the program's.
    func load(_ file: URL, program: Program) throws -> any Session
}

/// A loaded program. It may be used by one thread at a time.
public protocol Session: AnyObject {
    /// Compute the outputs INTO the given arrays.
    ///
    /// Arrays are in the order of the program's ports and have their shapes; no output is another array of the
    /// call. The session may keep references to them as long as it lives.
    /// - Throws: `ClueError` when the program fails.
    func run(inputs: [FloatArray], outputs: [FloatArray]) throws
}
