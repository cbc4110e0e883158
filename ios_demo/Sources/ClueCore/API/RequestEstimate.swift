/// What a request would take at most, told before it runs.
public struct RequestEstimate: Equatable, Sendable {
    public let samples: Int
    /// How often each program would run when no stop is taken.
    public let runs: [String: Int]
    /// Floating point operations of these runs.
    public let flops: Int
    /// Bytes of the values and of the largest program; a request is paused when less is available.
    public let peakBytes: Int
    /// Bytes that the store takes meanwhile at most: checkpoints, and the new weights beside one.
    public let storageBytes: Int
    /// Seconds by the latest request of this engine, version and threads that was done on this device; nil when there is none.
    public let seconds: Double?
    /// Joules by the same request; nil when it was not measured.
    public let joules: Double?

    init(store: ForgetStore, engine: any Engine, samples: Int, scalars: [String: Double]) throws {
        let bundle = store.bundle
        self.samples = samples
        guard samples > 0 else {
            (runs, flops, peakBytes, storageBytes, seconds, joules) = ([:], 0, 0, 0, nil, nil)
            return
        }
        let counts = try PlanCounts(bundle, samples: samples, scalars: scalars)
        runs = counts.runs
        flops = try counts.runs.reduce(0) { try $0 + bundle.program($1.key).flops * $1.value }
        peakBytes = bundle.plannedPeak(samples: samples)
        let checkpoint = bundle.checkpointBytes(samples: samples)
        storageBytes = max(2 * checkpoint, bundle.weights.bytes + checkpoint)
        let known = try Self.known(store, engine, samples: samples, steps: counts.steps)
        (seconds, joules) = (known?.seconds, known?.joules)
    }

    /// Time and energy by the latest request that tells them for every phase that has steps, scaled by the steps of each.
    private static func known(
        _ store: ForgetStore, _ engine: any Engine, samples: Int, steps: [String: Int]
    ) throws -> (seconds: Double, joules: Double?)? {
        var phases: [Int: [String: JSON]] = [:]
        for record in try store.records() where isOf(engine, record) && record["status"] == .string("done") {
            guard let request = record["request_id"]?.int, let phase = record["phase"]?.string else { continue }
            phases[request, default: [:]][phase] = record
        }
        let sizes = Dictionary(uniqueKeysWithValues: try store.requests().map { ($0.id, $0.samples) })
        for (request, records) in phases.sorted(by: { $0.key > $1.key }) {
            guard let size = sizes[request], size > 0, let whole = records["request"] else { continue }
            let had = steps.keys.allSatisfy { (records[$0]?["steps"]?.int ?? 0) > 0 }
            guard had else { continue }
            let files = ["load_s", "save_s"].compactMap { whole[$0]?.number }.reduce(0, +)
            var (seconds, joules) = (files, Double?.some(0))
            for (phase, record) in records where phase != "request" {
                let ratio: Double
                if phase == "verify" {
                    ratio = Double(samples) / Double(size)
                } else if let wanted = steps[phase], let made = record["steps"]?.int {
                    ratio = Double(wanted) / Double(made)
                } else {
                    continue
                }
                seconds += ratio * (record["wall_s"]?.number ?? 0)
                if let sum = joules { joules = record["energy_j"]?.number.map { sum + ratio * $0 } }
            }
            return (rounded(seconds, 3), joules.flatMap { $0 > 0 ? rounded($0, 3) : nil })
        }
        return nil
    }

    private static func isOf(_ engine: any Engine, _ record: JSON) -> Bool {
        let made = record["runtime"]
        return made?["name"] == .string(engine.name) && made?["version"] == .string(engine.version)
            && made?["threads"] == .int(engine.threads)
    }
}
