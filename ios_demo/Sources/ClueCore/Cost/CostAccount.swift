/// The sums of one phase, or of the request. Times are in seconds, the peak in bytes.
struct CostAccount {
    var batch: Int?
    var wall = 0.0
    var processor = 0.0
    var load = 0.0
    var save = 0.0
    /// The time of each step.
    var steps: [Double] = []
    var peak = 0
    var thermal: (start: Double?, end: Double?)
    var throttled: Bool?
    var frequency: (start: Double?, end: Double?)

    init(batch: Int?) { self.batch = batch }

    mutating func enter(_ device: any DeviceMonitor) {
        if wall == 0 { (thermal.start, frequency.start) = (device.temperature(), device.frequency()) }
    }

    mutating func leave(_ peak: Int, _ device: any DeviceMonitor) {
        self.peak = max(self.peak, peak)
        (thermal.end, frequency.end) = (device.temperature(), device.frequency())
        let now = device.throttled()
        throttled = throttled.map { $0 || now == true } ?? now
    }

    /// These sums' keys of a cost record.
    var record: JSONObject {
        [
            "batch": batch.map(JSON.int) ?? .null, "steps": .int(steps.count), "wall_s": .double(rounded(wall, 6)),
            "cpu_s": .double(rounded(processor, 6)), "load_s": .double(rounded(load, 6)),
            "save_s": .double(rounded(save, 6)), "peak_mem_bytes": .int(peak),
            "step_ms": .object(["p50": percentile(50), "p95": percentile(95)]),
            "thermal_start": Self.json(thermal.start), "thermal_end": Self.json(thermal.end),
            "throttled": throttled.map(JSON.bool) ?? .null, "frequency_start": Self.json(frequency.start),
            "frequency_end": Self.json(frequency.end),
        ]
    }

    /// Between the two nearest of the sorted times, in proportion; in milliseconds, null without steps.
    private func percentile(_ percent: Double) -> JSON {
        guard !steps.isEmpty else { return .null }
        let sorted = steps.sorted()
        let place = percent / 100 * Double(sorted.count - 1)
        let below = Int(place)
        let above = min(below + 1, sorted.count - 1)
        return .double(rounded(1000 * (sorted[below] + (sorted[above] - sorted[below]) * (place - Double(below))), 3))
    }

    private static func json(_ value: Double?) -> JSON { value.map(JSON.double) ?? .null }

    // MARK: checkpoints

    /// Every sum; step times to the microsecond.
    var state: JSON {
        .object([
            "batch": batch.map(JSON.int) ?? .null, "wall_s": .double(wall), "cpu_s": .double(processor),
            "load_s": .double(load), "save_s": .double(save), "peak": .int(peak),
            "steps": .array(steps.map { .double(rounded($0, 6)) }), "thermal_start": Self.json(thermal.start),
            "thermal_end": Self.json(thermal.end), "throttled": throttled.map(JSON.bool) ?? .null,
            "frequency_start": Self.json(frequency.start), "frequency_end": Self.json(frequency.end),
        ])
    }

    /// The sums of `state`; nil where these are not the sums of this version.
    init?(state: JSON) {
        guard let wall = state["wall_s"]?.number, let processor = state["cpu_s"]?.number,
            let load = state["load_s"]?.number, let save = state["save_s"]?.number, let peak = state["peak"]?.int,
            let steps = state["steps"]?.array
        else { return nil }
        (batch, self.wall, self.processor) = (state["batch"]?.int, wall, processor)
        (self.load, self.save, self.peak) = (load, save, peak)
        self.steps = steps.compactMap(\.number)
        thermal = (state["thermal_start"]?.number, state["thermal_end"]?.number)
        throttled = state["throttled"]?.bool
        frequency = (state["frequency_start"]?.number, state["frequency_end"]?.number)
    }
}
