/// What happens when a new bundle's weights bring back what was forgotten.
public enum UpdatePolicy: String, CaseIterable, Sendable {
    /// The store is not opened; the error names the classes.
    case refuse
    /// The weights are adopted and the classes are no longer forgotten; a receipt says so.
    case serve
    /// The weights are adopted, and what was forgotten is queued to be forgotten again.
    case pending
}

/// What a classifier answers where the best class of an image was forgotten.
public enum ForgottenChoice: String, CaseIterable, Sendable {
    /// That class, with `forgotten` set.
    case tell
    /// The best other class; its probability is among these.
    case hide
    /// No class and no probability, with `forgotten` set.
    case reject
}

/// What a request forgets.
public enum ForgetTarget: Equatable, Sendable, ExpressibleByStringLiteral {
    /// A class by its name: all its stored samples.
    case classNamed(String)
    /// Stored samples by their ids.
    case samples([Int])

    public init(stringLiteral name: String) { self = .classNamed(name) }
}

/// The state of a request (docs/runtime-contract.md has the picture).
public enum RequestStatus: String, CaseIterable, Sendable {
    case queued, running, verifying, paused, done, failed, cancelled

    /// Whether it can no longer change.
    public var isFinal: Bool { [.done, .failed, .cancelled].contains(self) }

    /// The states that may come before this one.
    var before: [RequestStatus] {
        switch self {
        case .queued: []
        case .running: [.queued, .paused]
        case .verifying: [.running]
        case .paused: [.running, .verifying]
        case .done: [.verifying]
        case .failed: [.running, .verifying]
        case .cancelled: [.queued, .running, .verifying, .paused]
        }
    }
}

/// How a request ended, or that it paused.
public struct Outcome: Equatable, Sendable {
    /// The request's number in the store.
    public let request: Int
    /// `done`, `failed`, `cancelled` or `paused`.
    public let status: RequestStatus
    /// Why; of one that is done, what else is to be told.
    public let reason: String?
    public let seed: UInt64
    /// What was measured: samples, steps, epochs_run, stopped_early, metrics, stops, forget_accuracy_before and _after (percent) and the
    /// figures of the checks, as far as the request came.
    public let evidence: [String: JSON]
    /// The generation of weights that serves afterwards.
    public let generation: Int
    /// The cost records; of a paused request there are none yet.
    public let records: [JSON]
}

/// The answer for one image.
public struct Answer: Equatable, Sendable {
    /// Index of the best class; nil where it was forgotten and is rejected.
    public let label: Int?
    /// Its name.
    public let name: String?
    /// Its probability, from 0 to 1.
    public let probability: Double?
    /// Whether the best class was forgotten.
    public let forgotten: Bool
}
