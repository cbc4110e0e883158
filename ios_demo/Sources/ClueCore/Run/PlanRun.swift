import Foundation

/// How far an earlier part of a request came; `evidence` is what `PlanRun.soFar` gave.
public struct Begun {
    public let cursor: Int
    public let values: [String: FloatArray]
    public let evidence: JSONObject

    public init(cursor: Int, values: [String: FloatArray], evidence: JSONObject) {
        (self.cursor, self.values, self.evidence) = (cursor, values, evidence)
    }
}

/// Carries out the plan of one request in memory: programs, values, batches, random numbers; no store.
///
/// It holds the sessions, values and buffers. One thread uses it.
public final class PlanRun {
    public let bundle: ClueBundle
    public let job: Job
    /// Set before `run`; what is called may use this object.
    public var hooks = Hooks()
    /// The number of the next operation.
    public private(set) var cursor = 0
    public private(set) var evidence = Evidence()
    public let values: Values

    private let engine: any Engine
    private let meter: any Meter
    private var sessions: [String: any Session] = [:]
    private var classifiers: [String: BatchClassifier] = [:]
    private var buffers: [String: FloatArray] = [:]
    private var walk: PlanWalk

    /// Loads values and programs; with `begun` it goes on where that ended.
    /// - Throws: `ClueError` when a program or a value cannot be loaded.
    public init(
        bundle: ClueBundle, engine: any Engine, served: WeightsFile, job: Job, meter: any Meter, begun: Begun? = nil
    ) throws {
        (self.bundle, self.engine, self.job, self.meter) = (bundle, engine, job, meter)
        walk = try PlanWalk(
            plan: bundle.plan, samples: job.samples.labels.count, scalars: job.scalars, seed: job.seed)
        let clock = ContinuousClock()
        var start = clock.now
        values = try Values(bundle: bundle, served: served, samples: job.samples.labels.count, seed: job.seed)
        if let begun {
            cursor = begun.cursor
            evidence = try Evidence(soFar: begun.evidence)
            try values.restore(begun.values)
        }
        meter.loaded(seconds: (clock.now - start).seconds, phase: "")
        for (phase, name) in Self.programs(of: bundle.plan) where sessions[name] == nil {
            start = clock.now
            _ = try session(name)
            meter.loaded(seconds: (clock.now - start).seconds, phase: phase)
        }
    }

    /// (phase, program) for every run and stop in order, then predict, which verifies; no variants, which load
    /// when they are chosen and need no more than the program that they stand in for.
    static func programs(of plan: [PlanNode]) -> [(phase: String, program: String)] {
        plan.leaves.compactMap { leaf in
            switch leaf.node {
            case .run(let run): (leaf.phase, run.program)
            case .stop(let stop): (leaf.phase, stop.program)
            default: nil
            }
        } + [("verify", "predict")]
    }

    private func session(_ name: String) throws -> any Session {
        if let known = sessions[name] { return known }
        let made = try bundle.load(name, by: engine)
        sessions[name] = made
        return made
    }

    /// The evidence so far, with the sums that its unfinished means are made of.
    public func soFar() -> JSONObject { evidence.soFar }

    /// Note a measurement of the forget accuracy (percent) that a hook made at the end of an epoch.
    public func addStop(accuracy: Double) {
        evidence.stops.append(.init(operation: cursor, epoch: evidence.epochsRun - 1, accuracy: accuracy))
    }

    // MARK: - The plan

    /// Carry out the plan from the cursor on.
    /// - Throws: `RunEnd.cancelled`, `.paused` (the cursor says where to go on), `.refused` (a metric is not
    ///   finite), or `ClueError` when a program fails.
    public func run() throws {
        while cursor < walk.total {
            let operation = try walk.operation(cursor)
            try hooks.check()
            cursor = try carryOut(operation)
            let leaveTo = try walk.epochEnd(cursor)
            if let leaveTo, try hooks.enough() {
                evidence.stoppedEarly = evidence.stoppedEarly || cursor < leaveTo
                cursor = leaveTo
            }
            if leaveTo != nil || savesAfter(operation) { try hooks.save() }
        }
    }

    private func savesAfter(_ operation: PlanOperation) -> Bool {
        guard hooks.saveEvery > 0, case .run = operation.kind else { return false }
        return meter.steps % hooks.saveEvery == 0
    }

    /// Carry out one operation; the number of the next.
    private func carryOut(_ operation: PlanOperation) throws -> Int {
        let place = operation.place
        evidence.epochsRun = max(evidence.epochsRun, place.epoch + 1)
        var isRun = false
        if case .run = operation.kind { isRun = true }
        var metrics: [String: Double] = [:]
        var accuracy: Double?
        let leave = try meter.measure(place.phase, batch: place.positions?.count, step: isRun) { () -> Int? in
            switch operation.kind {
            case .run(let node): metrics = try runOnce(node, place)
            case .reset(let names):
                for name in names { try values.reset(name, epoch: place.epoch, turn: place.turn) }
            case .stop(let stop, let due, let leaveTo):
                guard due else { return nil }
                let isEnough = try isLowEnough(stop, operation)
                accuracy = evidence.stops.last?.accuracy
                return isEnough ? leaveTo : nil
            }
            return nil
        }
        for (name, value) in metrics.sorted(by: { $0.key < $1.key }) {
            guard value.isFinite else {
                throw RunEnd.refused("\(name) became \(value) in epoch \(place.epoch + 1)")
            }
            evidence.log(name, value, phase: place.phase, epoch: place.epoch)
        }
        // what a stop measured is told like a metric
        if let accuracy { metrics["forget_accuracy"] = accuracy }
        hooks.progress(
            PlanProgress(
                phase: place.phase, epoch: place.epoch, done: operation.number + 1, total: walk.total,
                metrics: metrics))
        guard let leave else { return operation.number + 1 }
        evidence.stoppedEarly = true
        return leave
    }

    private func isLowEnough(_ stop: PlanStop, _ operation: PlanOperation) throws -> Bool {
        let accuracy = try accuracy(of: stop.program, atMost: stop.samples)
        evidence.stops.append(
            .init(operation: operation.number, epoch: operation.place.epoch, accuracy: accuracy))
        return try accuracy <= PlanSizes(n: job.samples.labels.count, scalars: job.scalars).resolve(stop.accuracyAtMost)
    }

    // MARK: - One run of a program

    /// The program that a run node stands for now: the first variant that the values allow, else its own.
    private func chosen(_ node: PlanRunNode) -> String {
        node.instead.first { $0.zeros.allSatisfy { values.beginsWithZeros($0.key, $0.value) } }?.program
            ?? node.program
    }

    /// Make the inputs, run, take over the outputs; the metrics.
    private func runOnce(_ node: PlanRunNode, _ place: Place) throws -> [String: Double] {
        let program = try bundle.program(chosen(node))
        let inputs = program.inputs.map { input($0, node, place) }
        let outputs = program.outputs.map { port in
            ["state", "carry"].contains(port.role)
                ? values.target(node.binds(port)) : buffer("output \(port.name)", port.shape)
        }
        try session(program.name).run(inputs: inputs, outputs: outputs)
        meter.worked(program, times: 1)
        var metrics: [String: Double] = [:]
        for (port, array) in zip(program.outputs, outputs) {
            let name = node.binds(port)
            switch port.role {
            case "state", "carry": values.written(name)
            case "cache":
                // A sample that stands twice in a filled batch has the same row twice.
                let rows = values.current(name)
                let width = array.count / program.batch
                for (row, position) in (place.positions ?? []).enumerated() {
                    (rows.pointer + position * width).update(from: array.pointer + row * width, count: width)
                }
            case "metric": metrics[port.name] = Double(array.pointer.pointee)
            default: break
            }
        }
        return metrics
    }

    /// One array for all ports of a kind: programs do not run at the same time.
    private func buffer(_ kind: String, _ shape: [Int]) -> FloatArray {
        let key = "\(kind) \(shape)"
        if let known = buffers[key] { return known }
        let made = FloatArray(shape: shape)
        buffers[key] = made
        return made
    }

    private func input(_ port: ProgramPort, _ node: PlanRunNode, _ place: Place) -> FloatArray {
        let name = node.binds(port)
        if ["state", "carry"].contains(port.role) { return values.current(name) }
        let array = buffer("input \(port.role) \(name)", port.shape)
        // The bundle's checks: a program with the roles below stands in batches.
        let positions = place.positions ?? []
        switch port.role {
        case "scalar": array.fill(Float(job.scalars[name] ?? 0))
        case "cache":
            let rows = values.current(name)
            let width = array.count / positions.count
            for (row, position) in positions.enumerated() {
                (array.pointer + row * width).update(from: rows.pointer + position * width, count: width)
            }
        case "random":
            bundle.randoms[name]?.draw(
                seed: job.seed, epoch: place.epoch, positions: positions, turn: place.turn, into: array.pointer)
        case _ where name == "onehot":
            array.fill(0)
            for (row, position) in positions.enumerated() {
                array.pointer[row * bundle.classes.count + job.samples.labels[position]] = 1
            }
        default:
            if place.augment {
                let moves = positions.map { Philox.move(seed: job.seed, epoch: place.epoch, position: $0) }
                let moved = job.samples.images.at(positions).cropFlip(moves)
                moved.pixels(at: Array(0..<moved.count), into: array.pointer)
            } else {
                job.samples.images.pixels(at: positions, into: array.pointer)
            }
        }
        return array
    }

    // MARK: - Measuring

    /// Percent of the request's samples that a program gives their label, over at most so many of them.
    /// - Throws: as `logits`.
    public func accuracy(of program: String = "predict", atMost most: Int? = nil) throws -> Double {
        let n = job.samples.labels.count
        let count = min(most ?? n, n)
        let positions = (0..<count).map { $0 * n / count }
        let rows = try logits(job.samples.images, positions: positions, program: program)
        let correct = zip(rows, positions).count { row, position in row.best == job.samples.labels[position] }
        return 100 * Double(correct) / Double(count)
    }

    /// A row of logits for each position, by the current weights or by arrays in their place, by value.
    /// - Throws: `RunEnd.refused` when they are not finite, what `hooks.check` throws, `ClueError`.
    func logits(
        _ images: Images, positions: [Int]? = nil, state: [String: FloatArray]? = nil, program name: String = "predict"
    ) throws -> [[Float]] {
        let program = try bundle.program(name)
        if classifiers[name] == nil {
            classifiers[name] = try BatchClassifier(program: program, session: session(name))
        }
        let positions = positions ?? Array(0..<images.count)
        let rows =
            try classifiers[name]?.logits(
                images, positions: positions, state: { state?[$0] ?? values.current($0) }, between: hooks.check) ?? []
        meter.worked(program, times: (positions.count + program.batch - 1) / program.batch)
        guard rows.allSatisfy({ $0.allSatisfy { $0.isFinite } }) else {
            throw RunEnd.refused("the logits of \(name) are not finite")
        }
        return rows
    }
}

extension ClueBundle {
    /// Load a program's file.
    /// - Throws: `ClueError` when the bundle has none for this engine, or it cannot be loaded.
    func load(_ name: String, by engine: any Engine) throws -> any Session {
        let program = try program(name)
        guard let entry = program.files[engine.name] else {
            let made = program.files.keys.sorted().joined(separator: ", ")
            throw ClueError(
                .bundle,
                "bundle \(root.path) has no \(engine.name) programs (it has \(made)): export with --target ios")
        }
        return try engine.load(file(entry.file), program: program)
    }
}

extension Duration {
    /// The duration in seconds.
    var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}

extension Sequence {
    /// How many elements the condition holds for.
    func count(where condition: (Element) throws -> Bool) rethrows -> Int {
        try reduce(0) { try $0 + (condition($1) ? 1 : 0) }
    }
}
