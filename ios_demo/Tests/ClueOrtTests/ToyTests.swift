import ClueOrt
import XCTest

@testable import ClueCore

/// Plans that have everything a plan can have, by the toy bundle of contract/scenarios; a method that no runtime
/// knows.
final class ToyTests: XCTestCase {
    private lazy var bundle = try! ClueBundle.open(Fixture.toy)
    private lazy var weights = try! WeightsFile(Fixture.toy.appendingPathComponent("weights.safetensors"))

    private func job(_ label: String, _ n: Int, seed: UInt64 = 5, scalars: [String: Double] = [:]) throws -> Job {
        let samples = Labelled(
            images: try Fixture.toyImages(of: label, 0..<n),
            labels: [Int](repeating: try bundle.label(label), count: n))
        return Job(samples: samples, seed: seed, scalars: try bundle.merged(scalars: scalars))
    }

    private func run(_ job: Job, _ engine: any Engine, meter: CountingMeter = .init(), begun: Begun? = nil) throws -> PlanRun {
        try PlanRun(bundle: bundle, engine: engine, served: weights, job: job, meter: meter, begun: begun)
    }

    func testGolden() throws {
        let results = try GoldenCheck.check(bundle, engine: OrtEngine(threads: 1))
        XCTAssertEqual(results.count, 8)
        for result in results {
            XCTAssertTrue(result.ok, "\(result.program), \(result.output): \(result.error)")
        }
    }

    func testPlansAreThoseOfPiRuntime() throws {
        let cases = try Fixture.json(Fixture.digits().appendingPathComponent("toy.json")).array ?? []
        XCTAssertEqual(cases.count, 3)
        for given in cases {
            let (label, n) = (try XCTUnwrap(given["label"]?.string), try XCTUnwrap(given["n"]?.int))
            let scalars = (given["scalars"]?.object ?? [:]).compactMapValues(\.number)
            let job = try job(label, n, seed: UInt64(try XCTUnwrap(given["seed"]?.int)), scalars: scalars)
            let engine = try Recorder(bundle)
            let run = try run(job, engine)
            try run.run()
            try compare(engine.runs, with: given["runs"])
            try compare(.object(run.evidence.json), with: given["evidence"], "toy of \(label)")
            for (key, array) in run.values.state {
                let expected = try XCTUnwrap(given["state"]?[key]?.array).map { Float($0.number ?? .nan) }
                compare(array, with: expected, "toy of \(label): \(key)")
            }
        }
    }

    func testARequestThatWasInterruptedAnywhereEndsWithTheSameBits() throws {
        let job = try job("cat", 7, scalars: ["check_every": 1, "stop_at": 0])
        let engine = try OrtEngine(threads: 1)
        let whole = try run(job, engine)
        try whole.run()
        let (wanted, evidence) = (whole.values.state.map { Array($0.array) }, whole.evidence)
        var cursors: Set<Int> = []
        for operation in 0..<40 {
            let first = try run(job, engine)
            var left = operation
            first.hooks.check = {
                if left == 0 { throw RunEnd.paused("here") }
                left -= 1
            }
            do { try first.run() } catch RunEnd.paused(let reason) { XCTAssertEqual(reason, "here") }
            cursors.insert(first.cursor)
            // As a checkpoint does: through text and copies.
            let text = JSON.object(first.soFar()).text
            let saved = Dictionary(
                uniqueKeysWithValues: first.values.all.map { name, array in
                    let copy = FloatArray(shape: array.shape)
                    copy.copy(from: array)
                    return (name, copy)
                })
            let begun = Begun(
                cursor: first.cursor, values: saved,
                evidence: try StrictJSON.parse(Array(text.utf8), maxBytes: 1 << 20).object ?? [:])
            let second = try run(job, engine, begun: begun)
            try second.run()
            XCTAssertEqual(second.values.state.map { Array($0.array) }, wanted, "interrupted at \(operation)")
            XCTAssertEqual(second.evidence, evidence, "interrupted at \(operation)")
        }
        XCTAssertGreaterThan(cursors.count, 20)
    }

    func testHooksAreAskedAtTheirPlaces() throws {
        let job = try job("cat", 7, scalars: ["check_every": 0])
        let meter = CountingMeter()
        let run = try run(job, OrtEngine(threads: 1), meter: meter)
        var (saved, told, asked): ([Int], [PlanProgress], Int) = ([], [], 0)
        run.hooks.save = { [unowned run] in saved.append(run.cursor) }
        run.hooks.saveEvery = 5
        run.hooks.progress = { told.append($0) }
        run.hooks.enough = {
            asked += 1
            return asked == 2
        }
        try run.run()
        XCTAssertEqual(asked, 2, "after each epoch, and not after the one that was the last")
        XCTAssertEqual(run.evidence.epochsRun, 2)
        XCTAssertTrue(run.evidence.stoppedEarly)
        let total = try XCTUnwrap(told.last?.total)
        XCTAssertEqual(told.last?.done, total)
        XCTAssertEqual(told.last?.phase, "finish")
        // 2 notes, a reset, 2 + 2 steps, a shrink and a stop: 9 operations of 7 runs an epoch.
        XCTAssertEqual(total, 3 * 9 + 2)
        XCTAssertEqual(saved, [6, 9, 13, 27, 28])
        XCTAssertEqual(meter.ran["step"], 2 * 4 + 2)
    }

    func testMetricsThatAreNotFiniteAreRefused() throws {
        let run = try run(try job("cat", 7, scalars: ["lr": 1e38, "check_every": 0]), OrtEngine(threads: 1))
        XCTAssertThrowsError(try run.run()) { error in
            guard case .refused(let reason)? = error as? RunEnd else { return XCTFail("\(error)") }
            XCTAssertTrue(reason.contains("became") || reason.contains("not finite"), reason)
        }
    }

    func testVerificationSaysAllThatDoesNotHold() throws {
        let engine = try OrtEngine(threads: 1)
        let job = try job("cat", 7, scalars: ["epochs": 0, "lr_last": 0])
        let same = try run(job, engine)
        var evidence: JSONObject = [:]
        func refusal(_ run: PlanRun, limit: Double) throws -> String {
            let checks = Checks(accuracyAtMost: limit, forgotten: [0], heldOut: job.samples.at([0, 1]))
            do {
                try Verification.verify(bundle, run, old: weights, checks, evidence: &evidence)
                return ""
            } catch RunEnd.refused(let reason) { return reason }
        }
        XCTAssertEqual(try refusal(same, limit: 100), "the weights did not change")
        let moved = try run(try self.job("cat", 7, scalars: ["epochs": 0, "lr_last": 1e-6]), engine)
        try moved.run()
        XCTAssertEqual(try refusal(moved, limit: 100), "")
        XCTAssertEqual(evidence["held_out"]?["samples"], .int(2))
        XCTAssertEqual(evidence["guard"], .null)
        let accuracy = try XCTUnwrap(evidence["forget_accuracy_after"]?.number)
        XCTAssertGreaterThan(accuracy, 0, "the toy knows its cats")
        XCTAssertTrue(try refusal(moved, limit: 0).contains("had to come down to 0.0 %"))
        moved.values.current("frozen").fill(.nan)
        XCTAssertEqual(try refusal(moved, limit: 100), "the new frozen are not finite")
    }

    func testVariantsRunWhereTheValuesBeginWithZeros() throws {
        let folder = try TemporaryFolder()
        let root = try folder.copy(Fixture.toy)
        let manifest = root.appendingPathComponent("manifest.json")
        var text = try String(contentsOf: manifest, encoding: .utf8)
        let start = try XCTUnwrap(text.range(of: "\"step\": {"))
        let end = try XCTUnwrap(text.range(of: ", \"shrink\": {"))
        let twin = text[start.lowerBound..<end.lowerBound].replacingOccurrences(of: "\"step\": {", with: "\"twin\": {")
        text.insert(contentsOf: ", \(twin)", at: end.lowerBound)
        text = text.replacingOccurrences(of: "\"schema_version\": 1", with: "\"schema_version\": 2")
            .replacingOccurrences(
                of: "{\"run\": \"step\"}",
                with: "{\"run\": \"step\", \"instead\": [{\"run\": \"twin\", \"zeros\": {\"velocity\": 51}}]}")
        try text.write(to: manifest, atomically: true, encoding: .utf8)
        try Sha256.hex(text.utf8).write(
            to: root.appendingPathComponent("manifest.sha256"), atomically: true, encoding: .utf8)
        let other = try ClueBundle.open(root)
        let engine = try Recorder(other)
        let job = try job("cat", 4, scalars: ["check_every": 0])
        let varied = try PlanRun(bundle: other, engine: engine, served: weights, job: job, meter: CountingMeter())
        try varied.run()
        let steps = engine.runs.map(\.program).filter { ["step", "twin"].contains($0) }
        XCTAssertEqual(steps.first, "twin", "the velocity begins with zeros")
        XCTAssertFalse(steps.dropFirst().contains("twin"))
        let plain = try run(job, OrtEngine(threads: 1))
        try plain.run()
        XCTAssertEqual(
            varied.values.state.map { Array($0.array) }, plain.values.state.map { Array($0.array) })
    }

    func testCountsOfARequest() throws {
        let counts = try PlanCounts(bundle, samples: 7, scalars: bundle.merged(scalars: ["check_every": 1]))
        XCTAssertEqual(counts.operations, 3 * 9 + 2)
        XCTAssertEqual(counts.steps, ["teach": 6, "learn": 15, "finish": 2])
        XCTAssertEqual(counts.runs, ["note": 6, "step": 14, "shrink": 3, "predict": 3 * 2 + 4])
        XCTAssertEqual(try PlanCounts(bundle, samples: 0, scalars: [:]).operations, 0)
    }
}
