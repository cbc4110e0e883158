/// What can be asked about requests, on one store: made, run, ended, one after the other. It is synchronous; ``Unlearner`` puts it on
/// threads.
struct Desk {
    let store: ForgetStore
    let engine: any Engine
    let device: any DeviceMonitor

    private var bundle: ClueBundle { store.bundle }

    /// Queues a request; returns its id. All of it is frozen with the request.
    ///
    /// Throws ``ClueError`` for what is not known or out of range, a sample that an unfinished request has, an option that this device
    /// cannot keep.
    func submit(
        _ target: ForgetTarget, seed: UInt64?, scalars: [String: Double], options: Options
    ) throws -> Int {
        try options.check()
        let kind = if case .samples = target { "samples" } else { "class" }
        let aims = try Verification.aims(
            bundle, kind: kind, holdout: options.holdout, accuracyAtMost: options.accuracyAtMost)
        let merged = try bundle.merged(scalars: aims.merging(scalars) { $1 })
        try Budget.checkEnergy(options, measured: EnergyLedger(device.energy).here() != nil)
        var new = Requests.New(
            kind: kind, label: nil, className: nil, seed: try RequestRun.checkSeed(seed), scalars: merged, samples: [],
            options: options, retryOf: nil)
        switch target {
        case .samples(let ids): new.samples = ids
        case .classNamed(let name):
            let label = try bundle.label(name)
            new.samples = try store.sampleIDs(label: label)
            (new.label, new.className) = (label, bundle.classes[label])
            guard !new.samples.isEmpty else {
                throw ClueError(.invalid, "no samples of '\(bundle.classes[label])' are stored: add some first")
            }
        }
        return try store.requestRows.create(new)
    }

    /// Runs a queued request, or lets a paused one go on from its checkpoint, to the same bits.
    func run(_ request: Int, _ control: Control) throws -> Outcome {
        try RequestRun.carryOut(request, store: store, engine: engine, device: device, control: control)
    }

    /// Queues a request like one that has ended, by default with a new seed; returns the new one's id.
    func retry(_ request: Int, seed: UInt64?) throws -> Int {
        let old = try store.request(request)
        guard old.status.isFinal else {
            throw ClueError(
                .transition,
                "request \(request) is \(old.status.rawValue): let it go on, or cancel it before you retry it")
        }
        let samples = try store.requestRows.samples(of: request)
        guard samples.count == old.samples else {
            throw ClueError(
                .invalid, "the samples of request \(request) were erased: add them again and forget anew")
        }
        return try store.requestRows.create(
            .init(
                kind: old.kind, label: old.label, className: old.className, seed: try RequestRun.checkSeed(seed),
                scalars: old.scalars, samples: samples, options: old.options, retryOf: request))
    }

    /// Cancels a request; true when it has ended, false when what runs it was asked to end it.
    func cancel(_ request: Int) throws -> Bool {
        if [.running, .verifying].contains(try store.status(request)), try store.requestRows.askCancel(request) {
            return false
        }
        try store.cancelWaiting(request)
        return true
    }

    /// The oldest request that is queued, or paused by what is over: a kill, a stop, heat, too little memory. nil when there is none.
    ///
    /// Who carries out the queue gives those that were tried in this round as `passedOver`, so that they do not hold up the others.
    func next(passedOver: Set<Int> = []) throws -> Int? {
        try store.requests().first { request in
            !passedOver.contains(request.id) && (request.status == .queued || (request.status == .paused && goesOn(request)))
        }?.id
    }

    private func goesOn(_ request: Request) -> Bool {
        let reason = request.reason ?? ""
        guard Guards.endsByItself(reason) else { return false }
        do {
            if reason.hasPrefix(Guards.tooHot) {
                try ThermalGuard(limit: request.options.celsiusAtMost, device: device).checkStart()
            }
            if reason.hasPrefix(Guards.tooLittleMemory) {
                let planned = bundle.plannedPeak(samples: request.samples)
                try Guards.checkMemory(planned: planned, available: device.availableMemory())
            }
            return true
        } catch {
            return false
        }
    }
}
