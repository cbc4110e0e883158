/// How a run of a request ends other than by being complete. None of these is an error of the device.
public enum RunEnd: Error, Sendable, Equatable {
    /// It was cancelled between two operations.
    case cancelled
    /// It stops here for now; why.
    case paused(String)
    /// A check of the outcome said no; why.
    case refused(String)
}

/// Told after each operation: `done` of `total` operations, the metrics of the latest program.
public struct PlanProgress: Sendable, Equatable {
    public let phase: String
    public let epoch: Int
    public let done: Int
    public let total: Int
    public let metrics: [String: Double]
}

/// What a request works on: its frozen samples, its seed and its scalars.
public struct Job: Sendable {
    public let samples: Labelled
    public let seed: UInt64
    public let scalars: [String: Double]

    public init(samples: Labelled, seed: UInt64, scalars: [String: Double]) {
        (self.samples, self.seed, self.scalars) = (samples, seed, scalars)
    }
}

/// What is asked and told while a plan runs, on the thread that runs it.
public struct Hooks {
    /// Called before each operation and each batch of an accuracy; throws `RunEnd.cancelled` or `.paused`.
    public var check: () throws -> Void = {}
    /// Asked after each epoch of the outermost epochs loop; true ends that loop.
    public var enough: () throws -> Bool = { false }
    /// Called after each such epoch, and each `saveEvery` runs of programs unless that is 0.
    public var save: () throws -> Void = {}
    public var saveEvery = 0
    public var progress: (PlanProgress) -> Void = { _ in }

    public init() {}
}

/// Adds up what a run costs.
public protocol Meter: AnyObject {
    /// How many programs the plan has run, earlier parts of the request included.
    var steps: Int { get }
    /// Carry out the body as part of a phase ("" for none); `step` also counts it as a step with its time.
    func measure<T>(_ phase: String, batch: Int?, step: Bool, _ body: () throws -> T) throws -> T
    /// Time in seconds for loading programs or weights, for the request and, unless "", a phase.
    func loaded(seconds: Double, phase: String)
    /// A program ran so many times in the phase that is open.
    func worked(_ program: Program, times: Int)
}
