import Foundation

/// How a run of a request is watched and ended from outside, all asked between operations on the thread that runs it.
struct Control {
    var progress: (PlanProgress) -> Void = { _ in }
    /// True ends the request as cancelled.
    var cancel: () -> Bool = { false }
    /// True pauses it as stopped.
    var stop: () -> Bool = { false }
}

/// One forget request from its lock to its swap: run in memory, verify, write the new weights, serve them.
///
/// It goes on from its checkpoint when an earlier part of it left one (docs/runtime-contract.md).
final class RequestRun {
    /// Seconds between looks into the database for a cancellation by another process.
    private static let askEach = 1.0
    /// JSON numbers beyond 2^53 are not exact in every reader, and the seed is on record as one.
    private static let seedLimit: UInt64 = 1 << 53

    private let bundle: ClueBundle
    private let engine: any Engine
    private let store: ForgetStore
    private let device: any DeviceMonitor
    private let request: Request
    private let control: Control
    private let identity: Checkpoint.Identity
    private let served: Generation
    private let ledger: EnergyLedger
    private var meter: CostMeter
    private var budget: Budget
    private let thermal: ThermalGuard
    /// The forget accuracy of the old weights, once it is known.
    private var before: Double?
    private var evidence: JSONObject
    private var run: PlanRun?
    private var askNext = Clock.seconds()

    /// Runs a queued request, or lets a paused one go on.
    ///
    /// A failed check ends it as failed, a guard or budget pauses it; anything that breaks is thrown, after it was noted. In every case
    /// but done the old weights go on serving. Throws ``ClueError`` when another request is running, this one has ended, would not go on
    /// bit-identically (it stays paused), a program fails or a file cannot be written.
    static func carryOut(
        _ id: Int, store: ForgetStore, engine: any Engine, device: any DeviceMonitor, control: Control
    ) throws -> Outcome {
        try store.exclusive {
            let request = try store.request(id)
            guard [.queued, .paused].contains(request.status) else {
                throw ClueError(
                    .transition,
                    "request \(id) is \(request.status.rawValue): only a queued or paused one can run; retry makes a new one like it")
            }
            let ledger = EnergyLedger(device.energy)
            try Budget.checkEnergy(request.options, measured: ledger.here() != nil)
            let served = try store.serving()
            let identity = Checkpoint.Identity(
                request: id, seed: request.seed, manifest: store.bundle.sha256, base: served.sha256, engine: engine.name,
                version: engine.version, threads: engine.threads)
            var begun: Checkpoint?
            if request.status == .paused {
                let planned = Holdout.planned(request.samples, share: request.options.holdout ?? 0)
                begun = try Checkpoint.read(store.checkpointPath(id), bundle: store.bundle, samples: planned)
                try begun?.check(against: identity)
            }
            try store.requestRows.begin(id, baseGeneration: served.id)
            let run = RequestRun(request, identity, served, ledger, store, engine, device, control)
            return try run.carryOut(begun)
        }
    }

    /// The seed, or a new one from the system. Throws ``ClueError`` when it is out of range.
    static func checkSeed(_ seed: UInt64?) throws -> UInt64 {
        guard let seed else { return UInt64.random(in: 0..<seedLimit) }
        guard seed < seedLimit else {
            throw ClueError(.invalid, "seed \(seed) is out of range: it must be from 0 to 2^53 - 1")
        }
        return seed
    }

    private init(
        _ request: Request, _ identity: Checkpoint.Identity, _ served: Generation, _ ledger: EnergyLedger,
        _ store: ForgetStore, _ engine: any Engine, _ device: any DeviceMonitor, _ control: Control
    ) {
        (self.request, self.identity, self.served, self.ledger) = (request, identity, served, ledger)
        (self.store, self.engine, self.device, self.control) = (store, engine, device, control)
        bundle = store.bundle
        meter = CostMeter(engine: engine, batch: store.bundle.batch, device: device, ledger: ledger)
        budget = Budget(request.options, joules: ledger.here)
        thermal = ThermalGuard(limit: request.options.celsiusAtMost, device: device)
        evidence = ["samples": .int(request.samples), "steps": .int(0)]
    }

    private func carryOut(_ begun: Checkpoint?) throws -> Outcome {
        do {
            let digest = try newWeights(begun)
            return try end(.done, nil, newWeights: digest)
        } catch RunEnd.cancelled {
            return try end(.cancelled, nil)
        } catch RunEnd.refused(let reason) {
            return try end(.failed, reason)
        } catch RunEnd.paused(let reason) {
            return try pause(reason)
        } catch {
            // What broke matters more than that it could not be noted: the next open notes it as interrupted.
            try? giveUp(error)
            throw error
        }
    }

    /// Notes the error and removes the new weights, unless it came so late that they serve already.
    ///
    /// In this order: where the flush of the swap failed its transaction may still be on the disk, and then the weights serve after the
    /// next open. Once another transaction went through it is not.
    private func giveUp(_ error: any Error) throws {
        guard try store.serving().request != request.id else { return }
        let path = store.generationRows.path(try store.generationRows.of(request.id))
        _ = try end(.failed, "\(error)")
        try Files.erase(path)
    }

    /// Runs, verifies and writes the new weights; returns their SHA-256.
    private func newWeights(_ begun: Checkpoint?) throws -> String {
        try thermal.checkStart()
        try Guards.checkMemory(
            planned: bundle.plannedPeak(samples: request.samples), available: device.availableMemory())
        let begun = restored(begun)
        let start = Clock.seconds()
        let old = try WeightsFile.open(served.file, sha256: served.sha256, bundle: bundle)
        let all = try store.labelled(of: request.id)
        meter.loaded(seconds: Clock.seconds() - start, phase: "")
        let share = request.options.holdout ?? 0
        let (plan, heldOut) = Holdout.split(all, share: share, seed: request.seed)
        let job = Job(samples: plan, seed: request.seed, scalars: request.scalars)
        let run = try planRun(job, old, begun)
        do {
            defer { note() }
            if before == nil {
                before = try meter.measure("verify", batch: nil, step: false) { try run.accuracy() }
            }
            evidence["forget_accuracy_before"] = before.map(JSON.double)
            try run.run()
            try store.requestRows.move(request.id, to: .verifying)
            try verify(run, old, heldOut)
        }
        try check()
        return try meter.saving { try write(run, old) }
    }

    /// Takes over the sums of the earlier parts; nil when they are another version's: it starts anew.
    private func restored(_ begun: Checkpoint?) -> Checkpoint? {
        guard let begun, meter.restore(begun.cost) else { return nil }
        evidence = request.evidence.merging(evidence) { $1 }
        return begun
    }

    private func planRun(_ job: Job, _ old: WeightsFile, _ begun: Checkpoint?) throws -> PlanRun {
        var soFar: Begun?
        if let begun {
            var evidence = begun.evidence
            let earlier = evidence.removeValue(forKey: "joules")?.number ?? 0
            budget = Budget(request.options, earlier: earlier, joules: ledger.here)
            before = evidence.removeValue(forKey: "forget_accuracy_before")?.number
            soFar = Begun(cursor: begun.cursor, values: begun.values, evidence: evidence)
        }
        let run = try PlanRun(bundle: bundle, engine: engine, served: old, job: job, meter: meter, begun: soFar)
        run.hooks.progress = control.progress
        run.hooks.check = { [unowned self] in try check() }
        run.hooks.enough = { [unowned self] in try isEnough() }
        run.hooks.save = { [unowned self] in try save() }
        run.hooks.saveEvery = request.options.checkpointSteps ?? 0
        self.run = run
        return run
    }

    /// Throws `RunEnd.refused` unless the new weights may serve.
    private func verify(_ run: PlanRun, _ old: WeightsFile, _ heldOut: Labelled) throws {
        let limit = try Verification.accuracyLimit(
            bundle, kind: request.kind, given: request.options.accuracyAtMost)
        let forgotten = Set(try store.forgotten() + (request.label.map { [$0] } ?? []))
        let checks = Checks(accuracyAtMost: limit, forgotten: forgotten, heldOut: heldOut)
        try meter.measure("verify", batch: nil, step: false) {
            try Verification.verify(bundle, run, old: old, checks, evidence: &evidence)
        }
    }

    /// Writes the new generation's file; arrays of the old one that are no state stay as they were.
    private func write(_ run: PlanRun, _ old: WeightsFile) throws -> String {
        var arrays: [String: FloatArray] = [:]
        for (key, array) in run.values.state { arrays[key] = array }
        for key in old.keys where arrays[key] == nil { arrays[key] = try old.read(key) }
        let path = store.generationRows.path(try store.generationRows.of(request.id))
        return try Files.write(path) { sink in
            let entries = arrays.mapValues { (dtype: "F32", shape: $0.shape, bytes: $0.bytes.count) }
            try Safetensors.header(arrays: entries).withUnsafeBytes(sink)
            for (_, array) in arrays.sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) {
                try sink(UnsafeRawBufferPointer(array.bytes))
            }
        }
    }

    // MARK: between operations

    /// Throws `RunEnd` when the run is to end here.
    private func check() throws {
        if control.cancel() { throw RunEnd.cancelled }
        if control.stop() { throw RunEnd.paused(Guards.stopped) }
        if Clock.seconds() >= askNext {
            askNext = Clock.seconds() + Self.askEach
            if try store.requestRows.cancelWasAsked(request.id) { throw RunEnd.cancelled }
        }
        try budget.check()
        try thermal.check()
    }

    /// Whether the request's own limits for stopping early are reached; at the end of an epoch.
    private func isEnough() throws -> Bool {
        if budget.isEnough { return true }
        guard let limit = request.options.stopAccuracy, let run else { return false }
        let accuracy = try meter.measure("verify", batch: nil, step: false) { try run.accuracy() }
        run.addStop(accuracy: accuracy)
        return accuracy <= limit
    }

    /// Writes the checkpoint of this moment.
    private func save() throws {
        // Else nothing was done yet that is worth keeping.
        guard let run, let before else { return }
        try meter.saving {
            var evidence = run.soFar()
            evidence["forget_accuracy_before"] = .double(before)
            evidence["joules"] = .double(budget.totalJoules ?? 0)
            let values = Dictionary(uniqueKeysWithValues: run.values.all.map { ($0.name, $0.array) })
            let checkpoint = Checkpoint(
                identity: identity, cursor: run.cursor, values: values, evidence: evidence, cost: meter.state())
            try checkpoint.write(to: store.checkpointPath(request.id), bundle: bundle)
        }
    }

    // MARK: ends

    /// Brings the evidence up to this moment.
    private func note() {
        evidence["steps"] = .int(meter.steps)
        if let run { evidence.merge(run.evidence.json) { $1 } }
    }

    private func pause(_ reason: String) throws -> Outcome {
        try save()
        try store.requestRows.pause(request.id, reason: reason, evidence: evidence)
        return try outcome(.paused, reason, [])
    }

    private func end(_ status: RequestStatus, _ reason: String?, newWeights: String? = nil) throws -> Outcome {
        let records = meter.records(request.id, weights: served.sha256, status: status)
        var ending = ForgetStore.Ending(
            status: status, reason: reason, evidence: evidence, records: records, newWeights: newWeights)
        if let newWeights, let record = records.last {
            ending.receipt = try store.issuer.forget(
                .init(
                    request: request, before: served.sha256, after: newWeights,
                    generation: served.file.lastPathComponent, evidence: evidence, record: record))
        }
        try store.finish(request.id, ending)
        var told = reason
        do {
            let lines = records.map(\.text).joined(separator: "\n")
            try Files.append(store.folder.appendingPathComponent("cost.jsonl"), lines: lines)
        } catch let error as ClueError {
            // The store has the records too: no reason to take back what was done.
            told = reason.map { "\($0); \(error.message)" } ?? error.message
        }
        return try outcome(status, told, records)
    }

    private func outcome(_ status: RequestStatus, _ reason: String?, _ records: [JSON]) throws -> Outcome {
        Outcome(
            request: request.id, status: status, reason: reason, seed: request.seed, evidence: evidence,
            generation: try store.serving().id, records: records)
    }
}
