/// The options of a request: limits and choices that are frozen with it. nil: not given.
public struct Options: Equatable, Sendable {
    /// Percent that the forget accuracy must come down to, in place of the bundle's.
    public var accuracyAtMost: Double?
    /// Seconds that one run may take, from its start or resumption on; then it pauses.
    public var maxSeconds: Double?
    /// Joules that one run may take; then it pauses.
    public var maxJoules: Double?
    /// Degrees Celsius above which the request pauses; 80 when not given.
    public var maxCelsius: Double?
    /// A checkpoint each so many runs of programs, besides those after each epoch.
    public var checkpointSteps: Int?
    /// After each epoch the plan's epochs are over when the forget accuracy (percent) is at most this.
    public var stopAccuracy: Double?
    /// The same, when the request has used this many joules.
    public var stopJoules: Double?
    /// The share of a class's samples, 0 to 0.5, that the plan does not get, only the checks.
    public var holdout: Double?
    /// Set by the store: a new bundle has brought the class back.
    var broughtBack: Bool?

    public init() {}

    /// The names as they stand in the request's row.
    private static let names = [
        "accuracy_at_most", "max_seconds", "max_joules", "max_celsius", "checkpoint_steps", "stop_accuracy", "stop_joules",
        "holdout", "brought_back",
    ]
    static let defaultCelsius = 80.0

    /// The options of a request's row. Throws ``ClueError`` for an unknown name or a value out of range.
    init(row: [String: JSON]) throws {
        for (name, value) in row {
            guard Self.names.contains(name) else { throw ClueError.unknown("option", name, Self.names) }
            guard value.isNull || value.number != nil || name == "brought_back" else {
                throw ClueError(.invalid, "\(name) must be a number")
            }
        }
        accuracyAtMost = row["accuracy_at_most"]?.number
        maxSeconds = row["max_seconds"]?.number
        maxJoules = row["max_joules"]?.number
        maxCelsius = row["max_celsius"]?.number
        if let steps = row["checkpoint_steps"]?.number {
            guard let whole = Int(exactly: steps) else {
                throw ClueError(.invalid, "checkpoint_steps is \(steps): it must be a whole number from 1 on")
            }
            checkpointSteps = whole
        }
        stopAccuracy = row["stop_accuracy"]?.number
        stopJoules = row["stop_joules"]?.number
        holdout = row["holdout"]?.number
        broughtBack = row["brought_back"]?.bool
        try check()
    }

    /// Throws ``ClueError`` for a value out of range.
    func check() throws {
        for (name, value) in [("accuracy_at_most", accuracyAtMost), ("stop_accuracy", stopAccuracy)] {
            if let value, !(0...100).contains(value) {
                throw ClueError(.invalid, "\(name) is \(value): it must be from 0 to 100 percent")
            }
        }
        for (name, value) in [("max_seconds", maxSeconds), ("max_joules", maxJoules), ("stop_joules", stopJoules)] {
            if let value, !(value.isFinite && value > 0) { throw ClueError(.invalid, "\(name) is \(value): it must be more than 0") }
        }
        if let maxCelsius, !(maxCelsius > 0 && maxCelsius <= 120) {
            throw ClueError(.invalid, "max_celsius is \(maxCelsius): it must be from 0 to 120 degrees")
        }
        if let checkpointSteps, !(1..<(1 << 53)).contains(checkpointSteps) {
            throw ClueError(.invalid, "checkpoint_steps is \(checkpointSteps): it must be a whole number from 1 on")
        }
    }

    /// Those that are given, as they stand in the request's row.
    var row: [String: JSON] {
        let given: [String: JSON?] = [
            "accuracy_at_most": accuracyAtMost.map(JSON.double), "max_seconds": maxSeconds.map(JSON.double),
            "max_joules": maxJoules.map(JSON.double), "max_celsius": maxCelsius.map(JSON.double),
            "checkpoint_steps": checkpointSteps.map(JSON.int), "stop_accuracy": stopAccuracy.map(JSON.double),
            "stop_joules": stopJoules.map(JSON.double), "holdout": holdout.map(JSON.double),
            "brought_back": broughtBack.map(JSON.bool),
        ]
        return given.compactMapValues { $0 }
    }

    /// Above this temperature (degrees Celsius) the request pauses.
    var celsiusAtMost: Double { maxCelsius ?? Self.defaultCelsius }

    /// The given options that only a device which measures energy can keep.
    var needingEnergy: [String] {
        [("max_joules", maxJoules), ("stop_joules", stopJoules)].compactMap { $1 == nil ? nil : $0 }
    }
}
