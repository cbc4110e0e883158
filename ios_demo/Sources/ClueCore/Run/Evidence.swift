/// What happened in a run: the mean of each metric by phase and epoch, the percent that stops measured.
public struct Evidence: Equatable, Sendable {
    /// A measurement of the forget accuracy, in percent.
    public struct Stop: Equatable, Sendable {
        public let operation: Int
        public let epoch: Int
        public let accuracy: Double
    }

    /// The sum that an unfinished mean is made of.
    struct Sum: Equatable {
        var epoch: Int
        var total: Double
        var count: Int
    }

    public internal(set) var epochsRun = 0
    public internal(set) var stoppedEarly = false
    /// [phase: [metric: the mean of each epoch]].
    public internal(set) var metrics: [String: [String: [Double]]] = [:]
    public internal(set) var stops: [Stop] = []
    private var sums: [String: [String: Sum]] = [:]

    public init() {}

    /// What a request's row and its receipt say.
    public var json: JSONObject {
        [
            "epochs_run": .int(epochsRun),
            "stopped_early": .bool(stoppedEarly),
            "metrics": .object(
                metrics.mapValues { .object($0.mapValues { .array($0.map(JSON.double)) }) }),
            "stops": .array(
                stops.map {
                    .object([
                        "operation": .int($0.operation), "epoch": .int($0.epoch), "accuracy": .double($0.accuracy),
                    ])
                }),
        ]
    }

    /// `json` with the sums that unfinished means are made of, for a checkpoint.
    var soFar: JSONObject {
        let rows = sums.flatMap { phase, metrics in
            metrics.map { name, sum in
                JSON.array([.string(phase), .string(name), .int(sum.epoch), .double(sum.total), .int(sum.count)])
            }
        }
        return json.merging(["sums": .array(rows)]) { $1 }
    }

    /// From what `soFar` gave.
    /// - Throws: `ClueError` for anything else.
    init(soFar: JSONObject) throws {
        func fail() -> ClueError { ClueError(.storage, "the checkpoint has no sound evidence") }
        guard let epochs = soFar["epochs_run"]?.int, let early = soFar["stopped_early"]?.bool,
            let phases = soFar["metrics"]?.object, let stops = soFar["stops"]?.array, let sums = soFar["sums"]?.array
        else { throw fail() }
        (epochsRun, stoppedEarly) = (epochs, early)
        metrics = try phases.mapValues { phase in
            guard let found = phase.object else { throw fail() }
            return found.mapValues { $0.array?.compactMap(\.number) ?? [] }
        }
        self.stops = try stops.map { stop in
            guard let operation = stop["operation"]?.int, let epoch = stop["epoch"]?.int,
                let accuracy = stop["accuracy"]?.number
            else { throw fail() }
            return Stop(operation: operation, epoch: epoch, accuracy: accuracy)
        }
        for row in sums {
            guard let parts = row.array, parts.count == 5, let phase = parts[0].string, let name = parts[1].string,
                let epoch = parts[2].int, let total = parts[3].number, let count = parts[4].int
            else { throw fail() }
            self.sums[phase, default: [:]][name] = Sum(epoch: epoch, total: total, count: count)
        }
    }

    /// Add a metric of one run of a program to its mean.
    mutating func log(_ name: String, _ value: Double, phase: String, epoch: Int) {
        var means = metrics[phase]?[name] ?? []
        var sum = sums[phase]?[name] ?? Sum(epoch: -1, total: 0, count: 0)
        if sum.epoch != epoch {
            means.append(0)
            sum = Sum(epoch: epoch, total: 0, count: 0)
        }
        sum.total += value
        sum.count += 1
        means[means.count - 1] = sum.total / Double(sum.count)
        metrics[phase, default: [:]][name] = means
        sums[phase, default: [:]][name] = sum
    }
}
