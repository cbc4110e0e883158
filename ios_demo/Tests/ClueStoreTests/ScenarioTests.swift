import Foundation
import XCTest

@testable import ClueCore

/// contract/scenarios: behaviour as data, which every runtime carries out; one test each, so that a failure has a name.
final class ScenarioTests: XCTestCase {
    private func play(_ name: String) throws {
        let scenario = try Places.json("scenarios/\(name).json")
        XCTAssertEqual(Set(scenario.object?.keys.map { $0 } ?? []), ["about", "steps"])
        try Player(folder: try Places.folder(self)).play(scenario["steps"]?.array ?? [])
    }

    func testEveryScenarioHasATest() throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: Places.scenarios.path)
        let names = files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }
        XCTAssertEqual(Set(names), Set(Self.names))
    }

    private static let names = [
        "add", "cancel", "class_request", "failed_verification", "forgotten_class", "interrupted", "killed_at_the_swap",
        "pause_resume", "queue", "rollback", "sample_request", "seal", "seal_interrupted", "update",
    ]

    func testAdd() throws { try play("add") }
    func testCancel() throws { try play("cancel") }
    func testClassRequest() throws { try play("class_request") }
    func testFailedVerification() throws { try play("failed_verification") }
    func testForgottenClass() throws { try play("forgotten_class") }
    func testInterrupted() throws { try play("interrupted") }
    func testKilledAtTheSwap() throws { try play("killed_at_the_swap") }
    func testPauseResume() throws { try play("pause_resume") }
    func testQueue() throws { try play("queue") }
    func testRollback() throws { try play("rollback") }
    func testSampleRequest() throws { try play("sample_request") }
    func testSeal() throws { try play("seal") }
    func testSealInterrupted() throws { try play("seal_interrupted") }
    func testUpdate() throws { try play("update") }
}
