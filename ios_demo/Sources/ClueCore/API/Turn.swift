/// What the thread of a ``Unlearner/Run`` does: requests, one after the other, each told as it goes.
struct Turn {
    let desk: Desk
    /// Raised when the request that runs is to pause, and no other to begin.
    let stop: Flag
    let tell: (Unlearner.Progress) -> Void

    /// Runs the request that `choose` names while the lock is held.
    func run(_ choose: (Desk) throws -> Int) throws {
        try desk.store.exclusive { try follow(try choose(desk)) }
    }

    /// Runs what can run, each request once. Between two the lock is free, for whoever waits to roll back or to seal.
    func runQueue() throws {
        var tried: Set<Int> = []
        while !stop.isRaised {
            let found = try desk.store.exclusive {
                guard let request = try desk.next(passedOver: tried) else { return false }
                tried.insert(request)
                do {
                    try follow(request)
                } catch let problem as ClueError {
                    tell(.init(request, try desk.store.request(request).status, .none, problem: problem))
                }
                return true
            }
            guard found else { return }
        }
    }

    private func follow(_ request: Int) throws {
        var latest = PlanProgress.none
        var control = Control(stop: { stop.isRaised })
        control.progress = { step in
            latest = step
            tell(.init(request, .running, step))
        }
        let outcome = try desk.run(request, control)
        tell(.init(request, outcome.status, latest, outcome: outcome))
    }
}

extension PlanProgress {
    /// Before the first operation.
    fileprivate static var none: Self { PlanProgress(phase: "", epoch: 0, done: 0, total: 0, metrics: [:]) }
}
