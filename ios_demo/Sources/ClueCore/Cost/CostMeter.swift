/// Adds up what one request costs: a record for each phase and one for the request, as contract/cost.schema.json says.
///
/// The peak memory is read and begun anew whenever the phase changes, so that each phase has its own where the system can do that; the
/// request's is the largest of all.
final class CostMeter: Meter {
    static let schema = 2

    private let engine: any Engine
    private let device: any DeviceMonitor
    private let ledger: EnergyLedger
    private var phases: [(name: String, account: CostAccount)] = []
    private var request: CostAccount
    private var open = ""
    /// Wall and processor time of the parts before an interruption.
    private var earlier = (wall: 0.0, processor: 0.0)
    private let start = (wall: Clock.seconds(), processor: Clock.processorSeconds())

    init(engine: any Engine, batch: Int, device: any DeviceMonitor, ledger: EnergyLedger) {
        (self.engine, self.device, self.ledger) = (engine, device, ledger)
        request = CostAccount(batch: batch)
        request.enter(device)
        device.resetPeakMemory()
    }

    var steps: Int { request.steps.count }

    func measure<T>(_ phase: String, batch: Int?, step: Bool, _ body: () throws -> T) throws -> T {
        if phase != open { change(to: phase) }
        let index = phases.firstIndex { $0.name == phase }
        if let index, phases[index].account.batch == nil { phases[index].account.batch = batch }
        let (wall, processor) = (Clock.seconds(), Clock.processorSeconds())
        defer {
            let took = Clock.seconds() - wall
            if step { request.steps.append(took) }
            if let index {
                phases[index].account.wall += took
                phases[index].account.processor += Clock.processorSeconds() - processor
                if step { phases[index].account.steps.append(took) }
            }
        }
        return try body()
    }

    func loaded(seconds: Double, phase: String) {
        request.load += seconds
        if !phase.isEmpty { phases[index(of: phase)].account.load += seconds }
    }

    /// No source of this platform estimates energy by what was computed.
    func worked(_ program: Program, times: Int) {}

    /// Counts the body as time for saving weights or a checkpoint; it is part of no phase.
    func saving<T>(_ body: () throws -> T) rethrows -> T {
        change(to: "")
        let start = Clock.seconds()
        defer { request.save += Clock.seconds() - start }
        return try body()
    }

    private func index(of phase: String) -> Int {
        if let found = phases.firstIndex(where: { $0.name == phase }) { return found }
        phases.append((phase, CostAccount(batch: nil)))
        return phases.count - 1
    }

    private func change(to phase: String) {
        let peak = device.peakMemory()
        if !open.isEmpty { phases[index(of: open)].account.leave(peak, device) }
        ledger.enter(phase)
        request.peak = max(request.peak, peak)
        device.resetPeakMemory()
        open = phase
        if !phase.isEmpty { phases[index(of: phase)].account.enter(device) }
    }

    private func closeRequest() {
        request.wall = earlier.wall + Clock.seconds() - start.wall
        request.processor = earlier.processor + Clock.processorSeconds() - start.processor
        request.leave(device.peakMemory(), device)
    }

    /// The records so far: the phases that began, in the order of the plan, then the request.
    ///
    /// `weights` is the SHA-256 of those that the request began with, `status` how it ended.
    func records(_ id: Int, weights: String, status: RequestStatus) -> [JSON] {
        change(to: "")
        ledger.end()
        closeRequest()
        let entered = phases.filter { $0.account.wall > 0 }
        return (entered + [(EnergyLedger.request, request)]).map { phase, account in
            .object(record(phase, account, id, weights, status))
        }
    }

    private func record(
        _ phase: String, _ account: CostAccount, _ id: Int, _ weights: String, _ status: RequestStatus
    ) -> JSONObject {
        let facts = device.facts
        let record: JSONObject = [
            "schema": .int(Self.schema), "request_id": .int(id), "phase": .string(phase), "device": facts.json,
            "runtime": .object([
                "name": .string(engine.name), "version": .string(engine.version), "backend": .string(engine.backend),
                "threads": .int(engine.threads),
            ]),
            "model_sha256": .string(weights), "peak_mem_source": .string(device.peakMemorySource),
            "plugged": device.plugged().map(JSON.bool) ?? .null, "status": .string(status.rawValue),
        ]
        return record.merging(account.record) { $1 }.merging(ledger.record(phase)) { $1 }
    }

    // MARK: checkpoints

    /// The sums so far, for a checkpoint.
    func state() -> JSON {
        let phase = open
        change(to: "")
        closeRequest()
        let sums = phases.map { JSON.object(["name": .string($0.name), "sums": $0.account.state]) }
        let energy = ledger.state()
        open = phase
        ledger.enter(phase)
        return .object(["request": request.state, "phases": .array(sums), "energy": energy])
    }

    /// Goes on with the sums of `state`; called before anything is measured. False, and nothing is changed, where these are not the sums
    /// of this version.
    func restore(_ state: JSON) -> Bool {
        guard let request = state["request"].flatMap(CostAccount.init(state:)), let rows = state["phases"]?.array,
            let energy = state["energy"]
        else { return false }
        var found: [(String, CostAccount)] = []
        for row in rows {
            guard let name = row["name"]?.string, let account = row["sums"].flatMap(CostAccount.init(state:)) else {
                return false
            }
            found.append((name, account))
        }
        guard ledger.restore(energy) else { return false }
        (self.request, phases) = (request, found)
        earlier = (request.wall, request.processor)
        return true
    }
}

extension DeviceFacts {
    /// The `device` entry of a cost record.
    var json: JSON {
        .object([
            "model": .string(model), "os": .string(os), "soc": soc.map(JSON.string) ?? .null, "ram_bytes": .int(ramBytes),
        ])
    }
}
