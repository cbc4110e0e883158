import Foundation

/// What a request's new weights are held to.
public struct Checks {
    /// Percent.
    public let accuracyAtMost: Double
    /// The classes that are or are being forgotten.
    public let forgotten: Set<Int>
    /// Samples that the plan did not have.
    public let heldOut: Labelled

    public init(accuracyAtMost: Double, forgotten: Set<Int>, heldOut: Labelled) {
        (self.accuracyAtMost, self.forgotten, self.heldOut) = (accuracyAtMost, forgotten, heldOut)
    }
}

/// What must hold before new weights serve (docs/runtime-contract.md, "Verify before swap").
public enum Verification {
    /// The percent that the accuracy on the samples must come down to; `kind` is "class" or "samples", `given` the
    /// request's own.
    /// - Throws: `ClueError` when it is out of range, or a request of samples has none.
    public static func accuracyLimit(_ bundle: ClueBundle, kind: String, given: Double?) throws -> Double {
        let own = kind == "class" ? bundle.forgetAccuracyAtMost : bundle.sampleAccuracyAtMost
        guard let limit = given ?? own else {
            throw ClueError(
                .invalid,
                "\(bundle.name) does not say how accurate it is on images that it never saw, which a request of "
                    + "samples comes down to: give accuracyAtMost in percent, or export with --guard-data")
        }
        guard (0...100).contains(limit) else {
            throw ClueError(.invalid, "accuracyAtMost is \(limit): it must be from 0 to 100 percent")
        }
        return limit
    }

    /// Check what a new request asks of its outcome; the scalars by which its plan aims at that. A request of
    /// samples is to end at test-like accuracy, not far below: where the plan has a stop whose limit is a scalar,
    /// that gets the request's limit, and one that would never measure does so each time.
    /// - Throws: `ClueError` for options that make no sense.
    public static func aims(
        _ bundle: ClueBundle, kind: String, holdout: Double?, accuracyAtMost: Double?
    ) throws -> [String: Double] {
        try Holdout.check(holdout, kind: kind)
        let limit = try accuracyLimit(bundle, kind: kind, given: accuracyAtMost)
        var found: [String: Double] = [:]
        if kind == "class" { return found }
        for leaf in bundle.plan.leaves {
            guard case .stop(let stop) = leaf.node else { continue }
            if case .scalar(let name) = stop.accuracyAtMost { found[name] = limit }
            if case .scalar(let name) = stop.every, bundle.scalars[name] == 0 { found[name] = 1 }
        }
        return found
    }

    /// Check the weights that `run` has arrived at, `old` being those of before. Fills in the evidence:
    /// forget_accuracy_after, accuracy_at_most, held_out, guard, collapse.
    /// - Throws: `RunEnd.refused` with all that does not hold; as `PlanRun.accuracy`.
    public static func verify(
        _ bundle: ClueBundle, _ run: PlanRun, old: WeightsFile, _ checks: Checks, evidence: inout JSONObject
    ) throws {
        try checkState(run, old)
        let before = try oldState(bundle, run, old)
        let limit = checks.accuracyAtMost
        let after = try run.accuracy()
        evidence["forget_accuracy_after"] = .double(after)
        evidence["accuracy_at_most"] = .double(limit)
        var wrong: [String] = []
        if after > limit {
            wrong.append("the forget accuracy is \(one(after)) %, it had to come down to \(one(limit)) %")
        }
        let held = try Outcome(run, before, checks.heldOut)
        evidence["held_out"] = held?.json(as: "samples") ?? .null
        if let held, held.after > limit {
            wrong.append(
                "the accuracy on the \(held.count) samples held out is \(one(held.after)) %, it had to come down "
                    + "to \(one(limit)) %")
        }
        let guarded = try checkGuard(bundle, run, before, checks.forgotten, &wrong)
        evidence["guard"] = guarded ?? .null
        evidence["collapse"] = .null
        if guarded == nil, let limits = bundle.collapse, checks.forgotten.count < bundle.classes.count {
            evidence["collapse"] = try checkCollapse(limits, run, before, checks.forgotten, &wrong)
        }
        if !wrong.isEmpty { throw RunEnd.refused(wrong.joined(separator: "; ")) }
    }

    /// A percentage with one digit behind the point.
    private static func one(_ value: Double) -> String { String(format: "%.1f", value) }

    /// Every array is finite and at least one differs.
    private static func checkState(_ run: PlanRun, _ old: WeightsFile) throws {
        var changed = false
        for (key, array) in run.values.state {
            guard array.isFinite else { throw RunEnd.refused("the new \(key) are not finite") }
            if !changed { changed = try !old.read(key).elementsEqual(array) }
        }
        guard changed else { throw RunEnd.refused("the weights did not change") }
    }

    /// The old weights by the names of their values. They go where a step would write next: those arrays are free
    /// now, so this takes no memory.
    private static func oldState(
        _ bundle: ClueBundle, _ run: PlanRun, _ old: WeightsFile
    ) throws -> [String: FloatArray] {
        var found: [String: FloatArray] = [:]
        for value in bundle.values where value.role == "state" {
            var array = run.values.target(value.name)
            if array === run.values.current(value.name) { array = FloatArray(shape: value.shape) }
            try old.read(value.weightsKey ?? value.name, into: array)
            found[value.name] = array
        }
        return found
    }

    /// Percent given their label by the old and by the new weights.
    private struct Outcome {
        let count: Int
        let before: Double
        let after: Double

        /// nil where there are no images.
        init?(_ run: PlanRun, _ old: [String: FloatArray], _ given: Labelled) throws {
            count = given.labels.count
            if count == 0 { return nil }
            func accuracy(_ rows: [[Float]]) -> Double {
                100 * Double(zip(rows, given.labels).count { $0.best == $1 }) / Double(given.labels.count)
            }
            before = accuracy(try run.logits(given.images, state: old))
            after = accuracy(try run.logits(given.images))
        }

        func json(as what: String) -> JSON {
            .object([what: .int(count), "accuracy_before": .double(before), "accuracy_after": .double(after)])
        }
    }

    /// The guard images; nil for a bundle without.
    /// - Throws: `ClueError` when their file does not fit the bundle.
    static func guardImages(_ bundle: ClueBundle) throws -> Labelled? {
        guard let file = bundle.guardFile else { return nil }
        let arrays = try WeightsFile(bundle.file(file))
        let shape = arrays.shape("images") ?? []
        let pixels = try arrays.bytes("images", dtype: "U8")
        let labels = try arrays.bytes("labels", dtype: "I64").withUnsafeBytes { bytes in
            (0..<bytes.count / 8).map { Int(Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self))) }
        }
        let size = [bundle.inputShape[1], bundle.inputShape[2], bundle.inputShape[0]]
        guard Array(shape.dropFirst()) == size, arrays.shape("labels") == [shape.first ?? 0], !labels.isEmpty else {
            throw bundle.wrong("\(file) has images \(shape) with labels \(arrays.shape("labels") ?? [])")
        }
        guard labels.allSatisfy(bundle.classes.indices.contains) else {
            throw bundle.wrong("\(file) has labels that are no classes")
        }
        let images = Images(count: labels.count, height: size[0], width: size[1], channels: size[2], pixels: pixels)
        return Labelled(images: images, labels: labels)
    }

    private static func checkGuard(
        _ bundle: ClueBundle, _ run: PlanRun, _ old: [String: FloatArray], _ forgotten: Set<Int>,
        _ wrong: inout [String]
    ) throws -> JSON? {
        guard let most = bundle.guardDropAtMost, let images = try guardImages(bundle) else { return nil }
        let others = images.labels.indices.filter { !forgotten.contains(images.labels[$0]) }
        guard let found = try Outcome(run, old, images.at(others)) else { return nil }
        if found.before - found.after > most {
            wrong.append(
                "the accuracy on the other classes fell from \(one(found.before)) % to \(one(found.after)) % on "
                    + "the \(found.count) guard images, by more than \(one(most)) points")
        }
        return .object((found.json(as: "images").object ?? [:]).merging(["drop_at_most": .double(most)]) { $1 })
    }

    private static func checkCollapse(
        _ limits: Collapse, _ run: PlanRun, _ old: [String: FloatArray], _ forgotten: Set<Int>,
        _ wrong: inout [String]
    ) throws -> JSON {
        let made = Probes.make(run.job.samples.images, seed: run.job.seed, count: limits.probes)
        let found = Probes.compare(
            try run.logits(made, state: old), try run.logits(made), forgotten: forgotten)
        let all = "of \(found.probes) made-up images"
        if found.kept < limits.keptAtLeast {
            wrong.append(
                "the model collapsed: only \(one(found.kept)) % \(all) are still taken for the same class, it had "
                    + "to be \(one(limits.keptAtLeast)) %")
        }
        // A model that took all of them for one class before says nothing by it.
        if found.largestShareAfter > limits.largestShareAtMost, limits.largestShareAtMost >= found.largestShareBefore {
            wrong.append(
                "the model collapsed: \(one(found.largestShareAfter)) % \(all) fall on one class, it had to be at "
                    + "most \(one(limits.largestShareAtMost)) %")
        }
        return .object([
            "probes": .int(found.probes), "kept": .double(found.kept),
            "largest_share_before": .double(found.largestShareBefore),
            "largest_share_after": .double(found.largestShareAfter),
            "kept_at_least": .double(limits.keptAtLeast),
            "largest_share_at_most": .double(limits.largestShareAtMost),
        ])
    }
}
