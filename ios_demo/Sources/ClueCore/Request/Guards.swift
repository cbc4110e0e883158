/// What pauses a request: too little memory, heat, a budget that is used up. The reasons begin as docs/runtime-contract.md says.
enum Guards {
    static let tooHot = "too hot"
    static let tooLittleMemory = "too little memory"
    static let overBudget = "over budget: "
    static let stopped = "stopped"

    /// Whether a pause for this reason ends without anybody's doing; what is over budget waits for the user.
    static func endsByItself(_ reason: String) -> Bool {
        [Requests.interruptedReason, stopped, tooHot, tooLittleMemory].contains { reason.hasPrefix($0) }
    }

    /// Throws `RunEnd.paused` when the planned peak (bytes) does not fit what is free; nothing is loaded yet.
    static func checkMemory(planned: Int, available: Int?) throws {
        guard let available, planned > available else { return }
        throw RunEnd.paused(
            "\(tooLittleMemory): \(planned >> 20) MiB are planned and \(available >> 20) MiB are available; end other programs")
    }
}

/// Pauses a request above a limit of degrees, or when the system says that the device is too hot; without a sensor it never is.
final class ThermalGuard {
    /// A request that paused goes on when it is this much cooler, in degrees: not a step after it paused.
    private static let hysteresis = 5.0
    /// Seconds; reading a sensor may take as long as a step.
    private static let askEach = 1.0

    private let limit: Double
    private let device: any DeviceMonitor
    private var next = -Double.infinity

    init(limit: Double, device: any DeviceMonitor) {
        (self.limit, self.device) = (limit, device)
    }

    /// Throws `RunEnd.paused` when it is too hot; asks once a second.
    func check() throws {
        guard Clock.seconds() >= next else { return }
        next = Clock.seconds() + Self.askEach
        try check(limit) { "the limit is \($0)" }
    }

    /// Throws `RunEnd.paused` when it is too hot to begin or to go on.
    func checkStart() throws {
        try check(limit - Self.hysteresis) { "a request begins at \($0) or less" }
    }

    private func check(_ limit: Double, _ rule: (Double) -> String) throws {
        if let told = device.overheated() { throw RunEnd.paused("\(Guards.tooHot): \(told)") }
        guard let now = device.temperature(), now > limit else { return }
        throw RunEnd.paused("\(Guards.tooHot): \(rounded(now, 1)) degrees, \(rule(limit))")
    }
}

/// What a run of a request may take, from when this is made. `earlier` joules were used by earlier parts of the request.
final class Budget {
    private let options: Options
    private let joules: () -> Double?
    private let earlier: Double
    private let start: (seconds: Double, joules: Double?)

    init(_ options: Options, earlier: Double = 0, joules: @escaping () -> Double?) {
        (self.options, self.earlier, self.joules) = (options, earlier, joules)
        start = (Clock.seconds(), joules())
    }

    /// Throws ``ClueError`` when an option needs the energy and this device does not measure it.
    static func checkEnergy(_ options: Options, measured: Bool) throws {
        guard !measured, !options.needingEnergy.isEmpty else { return }
        throw ClueError(
            .invalid,
            "\(options.needingEnergy.joined(separator: " and ")): this device does not measure energy, so that nothing can be "
                + "stopped by it; leave it out, or give max_seconds")
    }

    private var used: Double? {
        guard let began = start.joules, let now = joules() else { return nil }
        return now - began
    }

    /// Joules of the request so far, earlier parts included; nil where they are not measured.
    var totalJoules: Double? { used.map { earlier + $0 } }

    /// Throws `RunEnd.paused` when the run has taken what it may take.
    func check() throws {
        let seconds = Clock.seconds() - start.seconds
        if let most = options.maxSeconds, seconds >= most {
            throw RunEnd.paused("\(Guards.overBudget)\(rounded(seconds, 1)) s of \(most) s")
        }
        guard let most = options.maxJoules else { return }
        guard let used else {
            throw RunEnd.paused("\(Guards.overBudget)max_joules is set and the energy is not measured any longer")
        }
        if used >= most { throw RunEnd.paused("\(Guards.overBudget)\(rounded(used, 1)) J of \(most) J") }
    }

    /// Whether `stop_joules` is reached.
    var isEnough: Bool {
        guard let limit = options.stopJoules, let totalJoules else { return false }
        return totalJoules >= limit
    }
}
