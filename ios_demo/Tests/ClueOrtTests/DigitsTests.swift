import ClueOrt
import XCTest

@testable import ClueCore

/// The request of `make demo` (scikit-learn's digits, forgetting the 3), compared with what pi_runtime did with the
/// same bundle, samples and seed.
final class DigitsTests: XCTestCase {
    private struct Digits {
        let bundle: ClueBundle
        let samples: Labelled
        let reference: JSON
        let arrays: WeightsFile

        init() throws {
            let folder = try Fixture.digits()
            bundle = try ClueBundle.open(folder.appendingPathComponent("digits.clue"))
            reference = try Fixture.json(folder.appendingPathComponent("reference.json"))
            arrays = try WeightsFile(folder.appendingPathComponent("reference.safetensors"))
            let file = try WeightsFile(folder.appendingPathComponent("samples.safetensors"))
            let shape = try XCTUnwrap(file.shape("images"))
            let label = try bundle.label(XCTUnwrap(reference["label"]?.string))
            samples = Labelled(
                images: Images(
                    count: shape[0], height: shape[1], width: shape[2], channels: shape[3],
                    pixels: try file.bytes("images", dtype: "U8")),
                labels: [Int](repeating: label, count: shape[0]))
        }
    }

    func testGolden() throws {
        let digits = try Digits()
        let results = try GoldenCheck.check(digits.bundle, engine: OrtEngine(threads: 1))
        XCTAssertEqual(Set(results.map(\.program)), Set(digits.bundle.programs.map(\.name)))
        for result in results {
            XCTAssertTrue(result.ok, "\(result.program), \(result.output): \(result.error)")
        }
    }

    func testTheRequestIsTheOneOfPiRuntime() throws {
        let digits = try Digits()
        let (bundle, reference) = (digits.bundle, digits.reference)
        let engine = try Recorder(bundle)
        XCTAssertEqual(
            reference["engine"], .array([.string(engine.name), .string(engine.version), .int(engine.threads)]),
            "the reference was made with another engine: make it again")
        let weights = try WeightsFile.open(
            bundle.file(bundle.weights.file), sha256: bundle.weights.sha256, bundle: bundle)
        let job = Job(
            samples: digits.samples, seed: UInt64(try XCTUnwrap(reference["seed"]?.int)),
            scalars: try bundle.merged(scalars: [:]))
        XCTAssertEqual(job.scalars, reference["scalars"]?.object?.compactMapValues(\.number))
        let meter = CountingMeter()
        let run = try PlanRun(bundle: bundle, engine: engine, served: weights, job: job, meter: meter)
        let before = try run.accuracy()
        try run.run()
        var evidence = run.evidence.json
        let checks = Checks(
            accuracyAtMost: bundle.forgetAccuracyAtMost, forgotten: [digits.samples.labels[0]],
            heldOut: digits.samples.at([]))
        try Verification.verify(bundle, run, old: weights, checks, evidence: &evidence)
        evidence["forget_accuracy_before"] = .double(before)
        evidence["samples"] = .int(digits.samples.labels.count)
        evidence["steps"] = .int(meter.steps)

        try compare(engine.runs, with: reference["runs"])
        XCTAssertTrue(engine.runs.contains { $0.inputs["noise"] != nil }, "the request has no noise in it")
        try compareBits(engine, digits.arrays)
        try compare(.object(evidence), with: reference["evidence"], "evidence")
        for (key, array) in run.values.state {
            compare(array, with: try digits.arrays.read("final.\(key)"), "digits: final \(key)")
        }
    }

    /// The masks: as docs/parity.md allows, at most 1 of 1,000 elements may differ (those whose |R / tau - 1| is
    /// below 1e-3).
    private func compareBits(_ engine: Recorder, _ arrays: WeightsFile) throws {
        let keys = arrays.keys.filter { $0.hasPrefix("bits.") }
        XCTAssertEqual(engine.bits.count, keys.count)
        XCTAssertFalse(keys.isEmpty)
        for (key, found) in zip(keys, engine.bits) {
            let expected = try arrays.read(key)
            XCTAssertEqual(found.count, expected.count)
            let differing = zip(found, expected).count { $0 != $1 }
            print("digits: \(key) has \(found.count { $0 != 0 }) ones, \(differing) differ")
            XCTAssertLessThanOrEqual(differing, found.count / 1000, key)
        }
    }
}

#if os(Linux)
    extension DigitsTests {
        /// The whole way, with store, checkpoints, receipt and records: the table of clue-pi, its records' phases and
        /// steps, its weights.
        func testTheTableIsTheOneOfCluePi() throws {
            let source = try Fixture.digits()
            let folder = try TemporaryFolder()
            let reference = try Fixture.json(source.appendingPathComponent("reference.json"))
            let (bundle, store) = (source.appendingPathComponent("digits.clue"), folder.url.appendingPathComponent("store"))
            let label = try XCTUnwrap(reference["label"]?.string)
            let samples = source.appendingPathComponent("samples.safetensors")
            let added = try CommandLineTool.run(["add", bundle.path, store.path, label, samples.path])
            XCTAssertEqual(added.code, 0, added.errors)
            let seed = String(try XCTUnwrap(reference["seed"]?.int))
            let ended = try CommandLineTool.run(["forget", bundle.path, store.path, label, seed])
            XCTAssertEqual(ended.code, 0, ended.errors)
            print("digits:\n\(ended.output)")
            XCTAssertEqual(
                ended.output.split(separator: "\n").map(String.init),
                try XCTUnwrap(reference["told"]?.array).compactMap(\.string))
            let opened = try ForgetStore(folder: store, bundle: ClueBundle.open(bundle), signers: FileSigners())
            defer { opened.close() }
            let records = try opened.records().map { record in
                JSON.object(["phase", "steps", "batch"].reduce(into: [:]) { $0[$1] = record[$1] ?? .null })
            }
            XCTAssertEqual(.array(records), reference["records"])
            XCTAssertEqual(try opened.receipts().map(\.kind), ["forget"])
            let arrays = try WeightsFile(source.appendingPathComponent("reference.safetensors"))
            let final = try WeightsFile(try opened.serving().file)
            for key in final.keys { compare(try final.read(key), with: try arrays.read("final.\(key)"), "digits: stored \(key)") }
        }
    }
#endif
