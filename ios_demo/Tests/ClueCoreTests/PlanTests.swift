import XCTest

@testable import ClueCore

/// The numbered operations of a plan (contract/plan.md).
final class PlanTests: XCTestCase {
    private func run(_ program: String) -> PlanNode { .run(PlanRunNode(program: program, bind: [:], instead: [])) }

    private func loop(_ kind: PlanLoop.Kind, _ count: PlanNumber, _ body: PlanNode...) -> PlanNode {
        .loop(PlanLoop(kind: kind, count: count, body: body))
    }

    private func batches(_ size: Int, order: String? = nil, _ body: PlanNode...) -> PlanNode {
        .batches(PlanBatches(size: size, order: order, augment: nil, body: body))
    }

    private func stop(every: Double) -> PlanNode {
        .stop(PlanStop(program: "predict", every: .value(every), samples: 1, accuracyAtMost: .value(0)))
    }

    private func operations(_ plan: [PlanNode], n: Int, scalars: [String: Double] = [:]) throws -> [PlanOperation] {
        var walk = try PlanWalk(plan: plan, samples: n, scalars: scalars, seed: 9)
        // Backwards: an operation does not depend on those before it.
        return try (0..<walk.total).reversed().map { try walk.operation($0) }.reversed()
    }

    func testShortBatchesAreFilledCyclically() throws {
        let found = try operations([batches(4, order: "stored", batches(2, run("a")))], n: 3)
        XCTAssertEqual(found.map(\.place.positions), [[0, 1], [2, 0]])
        let longer = try operations([batches(4, order: "stored", run("a"))], n: 5)
        XCTAssertEqual(longer.map(\.place.positions), [[0, 1, 2, 3], [4, 0, 1, 2]])
    }

    func testShuffledLoopsOfAnEpochSeeOneOrder() throws {
        let plan = [loop(.epochs, .value(2), batches(3, run("a")), batches(3, run("b")))]
        let found = try operations(plan, n: 3)
        for (epoch, part) in [found[0..<2], found[2..<4]].enumerated() {
            let order = Philox.permutation(seed: 9, epoch: epoch, n: 3)
            XCTAssertEqual(part.map(\.place.positions), [order, order])
            XCTAssertEqual(part.map(\.place.epoch), [epoch, epoch])
        }
    }

    func testRepeatsCountOn() throws {
        let plan = [loop(.repeat, .value(2), loop(.repeat, .scalar("inner"), run("a")))]
        XCTAssertEqual(try operations(plan, n: 1, scalars: ["inner": 2.5]).map(\.place.turn), [0, 1, 2, 3, 4, 5])
        XCTAssertEqual(try operations(plan, n: 1, scalars: ["inner": 0.4]), [])
        XCTAssertEqual(try operations(plan, n: 1, scalars: ["inner": -3]), [])
    }

    func testAStopIsDueEachSoManyTimesWithinAnEpochAndLeavesTheOutermostEpochs() throws {
        let plan = [
            run("before"),
            loop(.epochs, .value(2), loop(.epochs, .value(1), batches(1, stop(every: 2)))),
            run("after"),
        ]
        let found = try operations(plan, n: 3).compactMap { operation -> Bool? in
            guard case .stop(_, let due, let leaveTo) = operation.kind else { return nil }
            XCTAssertEqual(leaveTo, 7)
            return due
        }
        XCTAssertEqual(found, [false, true, false, false, true, false])
        let never = try operations([loop(.epochs, .value(2), stop(every: 0.4))], n: 1)
        XCTAssertTrue(never.allSatisfy { if case .stop(_, due: false, _) = $0.kind { true } else { false } })
    }

    func testCheckpointsGoBehindEpochsOfTheOutermostLoop() throws {
        let inner = loop(.epochs, .value(2), run("b"))
        let plan: [PlanNode] = [run("a"), .phase("p", body: [loop(.epochs, .value(3), inner, run("c"))]), run("d")]
        let walk = try PlanWalk(plan: plan, samples: 1, scalars: [:], seed: 0)
        XCTAssertEqual(walk.total, 11)
        let ends = try (0...walk.total).map { try walk.epochEnd($0) }
        XCTAssertEqual(ends, [nil, nil, nil, nil, 10, nil, nil, 10, nil, nil, 10, nil])
        let repeated = try PlanWalk(
            plan: [loop(.repeat, .value(2), loop(.epochs, .value(2), run("a")))], samples: 1, scalars: [:], seed: 0)
        XCTAssertEqual(try (0...4).map { try repeated.epochEnd($0) }, [nil, 2, 2, 4, 4])
    }

    func testCountsThatNoDeviceCanCarryOutAreErrorsAndNoCrash() {
        for count in [1e300, .infinity, .nan, 9e15 * 2] {
            XCTAssertTrue(
                sentence(.invalid) {
                    _ = try PlanWalk(plan: [loop(.repeat, .value(count), run("a"))], samples: 1, scalars: [:], seed: 0)
                }.contains("plan"))
        }
        let many = loop(.repeat, .value(4e15), loop(.repeat, .value(4e15), run("a")))
        XCTAssertTrue(
            sentence(.invalid) { _ = try PlanWalk(plan: [many], samples: 1, scalars: [:], seed: 0) }
                .contains("2^53"))
    }
}
