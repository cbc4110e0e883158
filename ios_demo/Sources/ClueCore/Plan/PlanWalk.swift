/// Where in the plan an operation stands: what its random numbers, samples and cost depend on.
struct Place: Equatable {
    var phase = ""
    var epoch = 0
    /// Counts the iterations of the enclosing repeats.
    var turn = 0
    /// The current batch, as positions in the request's list of samples; nil outside of batches.
    var positions: [Int]?
    var augment = false
}

/// One of the numbered operations that a plan consists of.
struct PlanOperation: Equatable {
    enum Kind: Equatable {
        case run(PlanRunNode)
        case reset([String])
        /// `due`: the accuracy is to be measured; when it is low enough the next operation is `leaveTo`.
        case stop(PlanStop, due: Bool, leaveTo: Int)
    }

    let number: Int
    let place: Place
    let kind: Kind
}

/// The plan as a sequence of numbered operations for `n` samples, loops unrolled (contract/plan.md). Any of them
/// is found from its number, so that memory does not grow with how many there are.
struct PlanWalk {
    let plan: [PlanNode]
    let n: Int
    let scalars: [String: Double]
    let seed: UInt64
    private var shuffled: (epoch: Int, order: [Int])?

    /// How many operations there are when no stop is taken.
    let total: Int

    /// - Throws: `ClueError` where a count is not finite, or there are more operations than can be numbered.
    init(plan: [PlanNode], samples n: Int, scalars: [String: Double], seed: UInt64) throws {
        (self.plan, self.n, self.scalars, self.seed) = (plan, n, scalars, seed)
        total = try PlanSizes(n: n, scalars: scalars).size(of: plan, outer: nil)
    }

    private var sizes: PlanSizes { PlanSizes(n: n, scalars: scalars) }

    /// What only the walk needs to know of the enclosing loops.
    private struct Within {
        /// The operation after the outermost epochs loop.
        var leaveTo: Int?
        /// How often this place was reached before within the current epoch.
        var reached = 0
    }

    /// The operation of a number from 0 to `total` - 1.
    mutating func operation(_ number: Int) throws -> PlanOperation {
        precondition(0..<total ~= number, "there is no operation \(number)")
        return try find(number, in: plan, Place(), first: 0, Within())
    }

    private mutating func find(
        _ number: Int, in nodes: [PlanNode], _ place: Place, first: Int, _ within: Within
    ) throws -> PlanOperation {
        var first = first
        for node in nodes {
            let size = try sizes.size(of: node, outer: place.positions?.count)
            if number < first + size { return try find(number, in: node, place, first: first, within, size) }
            first += size
        }
        preconditionFailure("the sizes of the nodes are those of the plan")
    }

    private mutating func find(
        _ number: Int, in node: PlanNode, _ place: Place, first: Int, _ within: Within, _ size: Int
    ) throws -> PlanOperation {
        switch node {
        case .run(let run): return PlanOperation(number: number, place: place, kind: .run(run))
        case .reset(let values): return PlanOperation(number: number, place: place, kind: .reset(values))
        case .stop(let stop):
            let every = try sizes.whole(stop.every)
            let due = every > 0 && (within.reached + 1) % every == 0
            // The bundle's checks: a stop stands in an epochs loop.
            return PlanOperation(number: number, place: place, kind: .stop(stop, due: due, leaveTo: within.leaveTo ?? total))
        case .phase(let name, let body):
            var here = place
            here.phase = name
            return try find(number, in: body, here, first: first, within)
        case .loop(let loop):
            let count = try sizes.whole(loop.count)
            let i = (number - first) / (size / count)
            var (here, inside) = (place, within)
            if loop.kind == .epochs {
                here.epoch = i
                inside = Within(leaveTo: within.leaveTo ?? first + size)
            } else {
                here.turn = place.turn * count + i
                inside.reached = within.reached * count + i
            }
            return try find(number, in: loop.body, here, first: first + i * (size / count), inside)
        case .batches(let batches):
            let count = sizes.iterations(batches, outer: place.positions?.count)
            let i = (number - first) / (size / count)
            var inside = within
            inside.reached = within.reached * count + i
            let here = batch(batches, place, i)
            return try find(number, in: batches.body, here, first: first + i * (size / count), inside)
        }
    }

    private mutating func batch(_ node: PlanBatches, _ place: Place, _ i: Int) -> Place {
        var here = place
        let rows = i * node.size..<(i + 1) * node.size
        if let outer = place.positions {
            here.positions = Array(outer[rows])
        } else {
            let order = order(node.order ?? "shuffled", epoch: place.epoch)
            // A last short batch is filled cyclically.
            here.positions = rows.map { order[$0 % n] }
            here.augment = node.augment == "crop_flip"
        }
        return here
    }

    private mutating func order(_ kind: String, epoch: Int) -> [Int] {
        if kind == "stored" { return Array(0..<n) }
        if let shuffled, shuffled.epoch == epoch { return shuffled.order }
        let order = Philox.permutation(seed: seed, epoch: epoch, n: n)
        shuffled = (epoch, order)
        return order
    }

    /// Whether an epoch of an outermost epochs loop ends before operation `cursor`: there a checkpoint goes. Then
    /// the number of the operation after all epochs of this loop, else nil.
    func epochEnd(_ cursor: Int) throws -> Int? {
        try operationsLeft(plan, outer: nil, done: cursor).map { cursor + $0 }
    }

    /// When an epoch ends after `done` operations of these nodes: how many its loop has left.
    private func operationsLeft(_ nodes: [PlanNode], outer: Int?, done: Int) throws -> Int? {
        var done = done
        for node in nodes {
            let size = try sizes.size(of: node, outer: outer)
            if done > size {
                done -= size
                continue
            }
            if size == 0 || done == 0 { return nil }
            switch node {
            case .phase(_, let body): return try operationsLeft(body, outer: outer, done: done)
            case .loop(let loop):
                let body = try size / sizes.whole(loop.count)
                if loop.kind == .epochs { return done % body == 0 ? size - done : nil }
                return try operationsLeft(loop.body, outer: outer, done: (done - 1) % body + 1)
            case .batches(let batches):
                let body = size / sizes.iterations(batches, outer: outer)
                return try operationsLeft(batches.body, outer: batches.size, done: (done - 1) % body + 1)
            default: return nil
            }
        }
        return nil
    }
}

/// How many operations nodes have.
struct PlanSizes {
    let n: Int
    let scalars: [String: Double]

    private static let most = 1 << 53

    /// A number as it stands, or the scalar of that name.
    /// - Throws: `ClueError` for an unknown or infinite one.
    func resolve(_ number: PlanNumber) throws -> Double {
        let value: Double
        switch number {
        case .value(let given): value = given
        case .scalar(let name):
            guard let given = scalars[name] else { throw ClueError.unknown("scalar", name, scalars.keys) }
            value = given
        }
        guard value.isFinite else {
            throw ClueError(.invalid, "a count or limit of the plan is \(value): it must be finite")
        }
        return value
    }

    /// `resolve`, rounded to the nearest whole number, halves up; never below 0.
    func whole(_ number: PlanNumber) throws -> Int {
        let rounded = (try resolve(number) + 0.5).rounded(.down)
        guard rounded < Double(Self.most) else {
            throw ClueError(.invalid, "a count of the plan is \(rounded): it must be below 2^53")
        }
        return max(0, Int(rounded))
    }

    /// How often the body of a batches loop runs; `outer` is the size of the enclosing batch.
    func iterations(_ node: PlanBatches, outer: Int?) -> Int {
        if let outer { outer / node.size } else { n / node.size + (n % node.size == 0 ? 0 : 1) }
    }

    func size(of nodes: [PlanNode], outer: Int?) throws -> Int {
        try nodes.reduce(0) { sum, node in
            let (total, overflow) = sum.addingReportingOverflow(try size(of: node, outer: outer))
            guard !overflow, total <= Self.most else { throw Self.tooMany }
            return total
        }
    }

    func size(of node: PlanNode, outer: Int?) throws -> Int {
        switch node {
        case .run, .reset, .stop: return 1
        case .phase(_, let body): return try size(of: body, outer: outer)
        case .loop(let loop): return try product(size(of: loop.body, outer: outer), whole(loop.count))
        case .batches(let batches):
            return try product(size(of: batches.body, outer: batches.size), iterations(batches, outer: outer))
        }
    }

    private func product(_ body: Int, _ count: Int) throws -> Int {
        let (total, overflow) = body.multipliedReportingOverflow(by: count)
        guard !overflow, total <= Self.most else { throw Self.tooMany }
        return total
    }

    private static let tooMany = ClueError(
        .invalid, "the plan has more than 2^53 operations: give smaller counts")
}
