/// What a request would take, told before it runs: counts, memory, storage.
public struct PlanCounts: Equatable, Sendable {
    /// At most so many runs of each program, those of stops and checks included.
    public let runs: [String: Int]
    /// At most so many runs of programs by the plan alone, by phase.
    public let steps: [String: Int]
    /// How many operations the plan has.
    public let operations: Int

    /// Counted by walking the plan as it would be walked for `n` samples when no stop is taken.
    /// - Throws: `ClueError` for a count that is not finite or too large.
    public init(_ bundle: ClueBundle, samples n: Int, scalars: [String: Double]) throws {
        var runs: [String: Int] = [:]
        var steps: [String: Int] = [:]
        guard n > 0 else {
            (self.runs, self.steps, operations) = ([:], [:], 0)
            return
        }
        var walk = try PlanWalk(plan: bundle.plan, samples: n, scalars: scalars, seed: 0)
        func batches(_ name: String, _ count: Int) throws -> Int {
            let batch = try bundle.program(name).batch
            return (count + batch - 1) / batch
        }
        for number in 0..<walk.total {
            let operation = try walk.operation(number)
            switch operation.kind {
            case .run(let node):
                runs[node.program, default: 0] += 1
                steps[operation.place.phase, default: 0] += 1
            case .stop(let stop, due: true, leaveTo: _):
                runs[stop.program, default: 0] += try batches(stop.program, min(stop.samples, n))
            default: break
            }
        }
        runs["predict", default: 0] += try 2 * batches("predict", n)
        (self.runs, self.steps, operations) = (runs, steps, walk.total)
    }
}

extension ClueBundle {
    /// The bytes of the arrays that a request of `n` samples holds.
    public func valuesBytes(samples n: Int) -> Int {
        let swapped = Values.swapped(self)
        return values.reduce(0) { sum, value in
            let copies = value.role == "cache" ? n : swapped.contains(value.name) ? 2 : 1
            return sum + 4 * value.shape.reduce(1, *) * copies
        }
    }

    /// The bytes of the values and of the largest program; the engine's own code is not in it.
    public func plannedPeak(samples n: Int) -> Int {
        let used = Set(PlanRun.programs(of: plan).map(\.program))
        let largest = programs.filter { used.contains($0.name) }.map(\.peakBytes).max() ?? 0
        return valuesBytes(samples: n) + largest
    }

    /// The bytes of a checkpoint's arrays; its texts are small.
    public func checkpointBytes(samples n: Int) -> Int {
        values.reduce(0) { sum, value in
            let elements = value.shape.reduce(1, *)
            if value.storage == "bits" { return sum + (elements + 7) / 8 }
            return sum + 4 * elements * (value.role == "cache" ? n : 1)
        }
    }
}
