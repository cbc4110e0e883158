import Foundation

/// The runs of an ``Unlearner`` that have not ended: mostly one, as a second one waits for the first a moment only.
final class Runs: @unchecked Sendable {
    private let lock = NSLock()
    private var flags: [Flag] = []

    /// A run begins; what is returned tells it to stop.
    func begin() -> Flag {
        let flag = Flag()
        lock.withLock { flags.append(flag) }
        return flag
    }

    func end(_ flag: Flag) { lock.withLock { flags.removeAll { $0 === flag } } }

    /// Tells every one to stop.
    func pause() {
        for flag in lock.withLock({ flags }) { flag.raise() }
    }
}

/// Raised by one thread, looked at by another.
final class Flag: @unchecked Sendable {
    private let lock = NSLock()
    private var raised = false

    var isRaised: Bool { lock.withLock { raised } }
    func raise() { lock.withLock { raised = true } }
}
