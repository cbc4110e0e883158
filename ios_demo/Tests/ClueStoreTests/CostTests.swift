import ClueOrt
import Foundation
import XCTest

@testable import ClueCore

/// A counter of joules that a test turns.
private final class Counter: @unchecked Sendable {
    var joules: Double? = 100
}

/// Cost records, energy, and what pauses a request.
final class CostTests: XCTestCase {
    private func prepared(_ options: Options = .init(), seed: UInt64 = 5) throws -> (ForgetStore, Int, OrtEngine) {
        let folder = try Places.folder(self)
        let store = try ForgetStore(
            folder: folder.appendingPathComponent("store"), bundle: try Places.bundle(in: folder), signers: FileSigners())
        _ = try store.add(try Places.images("cat", 0..<19), label: 0)
        let engine = try OrtEngine(threads: 1)
        let desk = Desk(store: store, engine: engine, device: StillDevice())
        return (store, try desk.submit("cat", seed: seed, scalars: [:], options: options), engine)
    }

    func testRecordsAndReceiptsAreAsTheirSchemasSay() throws {
        let (store, request, engine) = try prepared()
        let outcome = try Desk(store: store, engine: engine, device: Platform.here.device).run(request, Control())
        XCTAssertEqual(outcome.status, .done)
        let schema = JSONSchema(try Places.json("cost.schema.json"))
        XCTAssertEqual(outcome.records.count, 5)
        for record in outcome.records {
            XCTAssertNoThrow(try schema.check(record), record.text)
            XCTAssertEqual(record["energy_j"], .null)
            XCTAssertNotNil(record["energy_note"]?.string)
        }
        let whole = try XCTUnwrap(outcome.records.last)
        XCTAssertEqual(whole["steps"]?.int, 20)
        XCTAssertGreaterThan(whole["peak_mem_bytes"]?.int ?? 0, 1 << 20)
        XCTAssertEqual(try store.records(), outcome.records)
        let lines = try RegularFile.small(store.folder.appendingPathComponent("cost.jsonl"), most: 1 << 20)
        XCTAssertEqual(String(decoding: lines, as: UTF8.self), outcome.records.map { $0.text + "\n" }.joined())
        let receipt = try XCTUnwrap(try store.receipts().first)
        XCTAssertNil(receipt.problem)
        XCTAssertEqual(receipt.content["weights"]?["after"], .string(try store.serving().sha256))
        let file = store.folder.appendingPathComponent("receipts/000001.json")
        XCTAssertEqual(String(decoding: try RegularFile.small(file, most: 1 << 20), as: UTF8.self), receipt.text)
        let key = try RegularFile.small(store.folder.appendingPathComponent("receipt.pub"), most: 100)
        XCTAssertEqual(String(decoding: key, as: UTF8.self), receipt.key + "\n")
    }

    func testEnergyOfPhasesAndOfTheRequest() throws {
        let counter = Counter()
        let source = EnergySource.counter(name: "test", scope: "all", kind: "measured") { counter.joules }
        let ledger = EnergyLedger(source)
        ledger.enter("learn")
        counter.joules = 110
        ledger.enter("verify")
        counter.joules = 111
        ledger.enter("learn")
        counter.joules = 115
        ledger.enter("")
        counter.joules = 118
        let state = ledger.state()
        ledger.end()
        XCTAssertEqual(ledger.record("learn")["energy_j"], .double(14))
        XCTAssertEqual(ledger.record("verify")["energy_j"], .double(1))
        XCTAssertEqual(ledger.record("request")["energy_j"], .double(18))
        XCTAssertEqual(ledger.record("request")["energy_kind"], .string("measured"))
        XCTAssertEqual(ledger.record("teach")["energy_j"], .null, "never 0")

        let later = EnergyLedger(source)
        XCTAssertTrue(later.restore(state))
        counter.joules = 120
        later.end()
        XCTAssertEqual(later.record("request")["energy_j"], .double(20))
        let other = EnergyLedger(.none { "no meter, at \(counter.joules ?? 0)" })
        XCTAssertTrue(other.restore(state))
        other.end()
        counter.joules = 130
        XCTAssertEqual(other.record("request")["energy_j"], .null)
        XCTAssertEqual(other.record("request")["energy_note"], .string("no meter, at 130.0"), "asked when it is written")
    }

    func testACounterThatFailsMakesTheWholeUnknown() {
        let counter = Counter()
        let ledger = EnergyLedger(.counter(name: "test", scope: "all", kind: "measured") { counter.joules })
        ledger.enter("learn")
        counter.joules = nil
        ledger.enter("")
        counter.joules = 200
        ledger.end()
        XCTAssertEqual(ledger.record("learn")["energy_j"], .null)
        XCTAssertEqual(ledger.record("request")["energy_j"], .double(100))
    }

    /// The phases' times and those of files: what runs between them is not in it.
    func testAnEstimateIsWhatTheSameRequestTook() throws {
        let (store, _, engine) = try prepared()
        let scalars = try store.bundle.merged(scalars: ["check_every": 0])  // no early stop, so that all steps were made
        let desk = Desk(store: store, engine: engine, device: StillDevice())
        _ = try desk.cancel(1)
        let request = try desk.submit("cat", seed: 5, scalars: scalars, options: .init())
        let outcome = try desk.run(request, Control())
        XCTAssertEqual(outcome.status, .done)
        var wanted = 0.0
        for record in outcome.records {
            for name in record["phase"]?.string == "request" ? ["load_s", "save_s"] : ["wall_s"] { wanted += record[name]?.number ?? 0 }
        }
        let estimate = try RequestEstimate(store: store, engine: engine, samples: 19, scalars: scalars)
        XCTAssertEqual(try XCTUnwrap(estimate.seconds), wanted, accuracy: 0.001)
    }

    func testPercentilesAreBetweenTheNearestTimes() {
        var account = CostAccount(batch: 4)
        XCTAssertEqual(account.record["step_ms"]?["p50"], .null)
        account.steps = [0.004, 0.001, 0.002, 0.003]
        XCTAssertEqual(account.record["step_ms"]?["p50"], .double(2.5))
        XCTAssertEqual(account.record["step_ms"]?["p95"], .double(3.85))
    }

    // MARK: what pauses a request

    private func reason(_ device: StillDevice, _ options: Options = .init()) throws -> String? {
        let (store, request, engine) = try prepared(options)
        let outcome = try Desk(store: store, engine: engine, device: device).run(request, Control())
        XCTAssertEqual(outcome.status, .paused)
        XCTAssertEqual(try store.request(request).status, .paused)
        return outcome.reason
    }

    func testHeatMemoryAndBudgetsPause() throws {
        XCTAssertEqual(try reason(StillDevice(celsius: 76)), "too hot: 76.0 degrees, a request begins at 75.0 or less")
        XCTAssertEqual(try reason(StillDevice(heat: "the thermal state is serious")), "too hot: the thermal state is serious")
        XCTAssertTrue(try XCTUnwrap(try reason(StillDevice(free: 10))).hasPrefix("too little memory: "))
        var options = Options()
        options.maxSeconds = 1e-9
        XCTAssertTrue(try XCTUnwrap(try reason(StillDevice(), options)).hasPrefix("over budget: "))
    }

    func testWhatIsOverGoesOnByItselfAndABudgetWaits() throws {
        let (store, request, engine) = try prepared()
        _ = try Desk(store: store, engine: engine, device: StillDevice(celsius: 90)).run(request, Control())
        XCTAssertNil(try Desk(store: store, engine: engine, device: StillDevice(celsius: 78)).next())
        XCTAssertEqual(try Desk(store: store, engine: engine, device: StillDevice(celsius: 70)).next(), request)
        try store.database.execute("UPDATE requests SET reason = 'over budget: 1 s of 1 s'")
        XCTAssertNil(try Desk(store: store, engine: engine, device: StillDevice()).next())
        let outcome = try Desk(store: store, engine: engine, device: StillDevice()).run(request, Control())
        XCTAssertEqual(outcome.status, .done)
        XCTAssertNil(try store.request(request).reason)
    }

    func testOptionsThatCannotBeKeptAreRefused() throws {
        let (store, _, engine) = try prepared()
        _ = try store.add(try Places.images("dog", 0..<3), label: 1)
        let desk = Desk(store: store, engine: engine, device: StillDevice())
        func refused(_ change: (inout Options) -> Void, _ words: String, line: UInt = #line) {
            var options = Options()
            change(&options)
            XCTAssertThrowsError(try desk.submit("dog", seed: 1, scalars: [:], options: options), line: line) {
                XCTAssertTrue("\($0)".contains(words), "\($0)", line: line)
            }
        }
        refused({ $0.maxJoules = 5 }, "does not measure energy")
        refused({ $0.accuracyAtMost = 101 }, "from 0 to 100")
        refused({ $0.holdout = 0.6 }, "0.5")
        refused({ $0.maxCelsius = 0 }, "120")
        refused({ $0.checkpointSteps = 0 }, "whole number")
        XCTAssertThrowsError(try desk.submit("dog", seed: 1 << 53, scalars: [:], options: .init()))
        XCTAssertThrowsError(try desk.submit("dog", seed: 1, scalars: ["none": 1], options: .init()))
        XCTAssertThrowsError(try desk.submit("10", seed: 1, scalars: [:], options: .init()))
        XCTAssertEqual(try store.requests().count, 1)
    }

    /// An interrupted request has the records of one that was not, but for times.
    func testTheRecordsOfAnInterruptedRequestAreThoseOfOneThatWasNot() throws {
        func facts(_ records: [JSON]) -> [JSON] {
            records.map { record in .object((record.object ?? [:]).filter { ["phase", "steps", "batch", "status"].contains($0.key) }) }
        }
        let (store, request, engine) = try prepared()
        let whole = try Desk(store: store, engine: engine, device: StillDevice()).run(request, Control())
        let (other, same, _) = try prepared()
        var outcome: Outcome?
        for _ in 0..<40 where outcome?.status != .done {
            var done = 0
            var control = Control(progress: { _ in done += 1 })
            control.stop = { done >= 2 }
            outcome = try Desk(store: other, engine: engine, device: StillDevice()).run(same, control)
        }
        XCTAssertEqual(outcome?.status, .done)
        XCTAssertEqual(outcome?.evidence, whole.evidence)
        XCTAssertEqual(facts(outcome?.records ?? []), facts(whole.records))
        XCTAssertEqual(try other.serving().sha256, try store.serving().sha256)
    }
}
