extension Unlearner {
    /// Told while a request runs: after each operation of its plan, and once more when it has ended.
    public struct Progress: Equatable, Sendable {
        /// The request's number in the store.
        public let request: Int
        /// `running` until it has ended; then `done`, `failed`, `cancelled` or `paused`, or of one that was refused what it was before.
        public let status: RequestStatus
        /// The phase of the plan.
        public let phase: String
        /// Counted from 0.
        public let epoch: Int
        /// `done` of `total` operations; a plan that stops early does not come to `total`.
        public let done: Int
        public let total: Int
        /// What the latest program measured, such as its energy or its loss.
        public let metrics: [String: Double]
        /// How the request ended; in its last element only.
        public let outcome: Outcome?
        /// Why the request was refused, or what broke; in its last element only, and only of ``Unlearner/runQueue()``: where one request
        /// is run, its stream throws it.
        public let problem: ClueError?

        /// Whether the request has ended for now in a way that time may mend, without anybody's doing: it was stopped or too hot,
        /// memory was short, or a file could not be read or written.
        public var isForLater: Bool {
            if let outcome { return outcome.status == .paused && Guards.endsByItself(outcome.reason ?? "") }
            return problem?.kind == .storage
        }

        init(_ request: Int, _ status: RequestStatus, _ step: PlanProgress, outcome: Outcome? = nil, problem: ClueError? = nil) {
            (self.request, self.status, self.outcome, self.problem) = (request, status, outcome, problem)
            (phase, epoch, done, total, metrics) = (step.phase, step.epoch, step.done, step.total, step.metrics)
        }
    }
}
