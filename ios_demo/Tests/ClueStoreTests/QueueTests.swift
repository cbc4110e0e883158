import ClueOrt
import Foundation
import XCTest

@testable import ClueCore

/// An engine that says it is another version, with which a request that has begun does not go on.
private struct OtherVersion: Engine {
    let engine: OrtEngine
    var name: String { engine.name }
    var version: String { "0.0.1" }
    var backend: String { engine.backend }
    var threads: Int { engine.threads }
    func load(_ file: URL, program: Program) throws -> any Session { try engine.load(file, program: program) }
}

/// Carrying out the queue: each request once, and none holds up the others.
final class QueueTests: XCTestCase {
    private func opened(_ folder: URL, engine: any Engine, device: StillDevice = .init()) throws -> Unlearner {
        try Unlearner(
            bundle: try Places.bundle(in: folder), store: folder.appendingPathComponent("store"), engine: engine,
            platform: Platform(device: device, signers: FileSigners()))
    }

    /// A store whose first request, of the cats, has begun with the other version and paused.
    private func begun(_ folder: URL) async throws {
        let unlearner = try opened(folder, engine: OtherVersion(engine: try OrtEngine(threads: 1)))
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        _ = try await unlearner.add(try Places.images("dog", 0..<9), to: "dog")
        for try await progress in unlearner.forget("cat", seed: 5, scalars: ["epochs": 100_000, "check_every": 0, "lr": 1e-6])
        where progress.done >= 4 { unlearner.pause() }
        let requests = try await unlearner.requests()
        XCTAssertEqual(requests.map(\.status), [.paused])
    }

    private func dog(_ unlearner: Unlearner, maxSeconds: Double? = nil) async throws -> Int {
        var options = Options()
        options.accuracyAtMost = 100
        options.maxSeconds = maxSeconds
        return try await unlearner.submit("dog", seed: 6, options: options)
    }

    /// The last element of each request of a round.
    private func round(_ unlearner: Unlearner) async throws -> [Unlearner.Progress] {
        var last: [Unlearner.Progress] = []
        for try await progress in unlearner.runQueue() where progress.outcome != nil || progress.problem != nil { last.append(progress) }
        return last
    }

    func testARefusedRequestDoesNotHoldUpTheNextOneAndStays() async throws {
        let folder = try Places.folder(self)
        try await begun(folder)
        let engine = try OrtEngine(threads: 1)
        let unlearner = try opened(folder, engine: engine)
        let next = try await dog(unlearner)
        let ended = try await round(unlearner)
        XCTAssertEqual(ended.map(\.request), [1, next])
        XCTAssertEqual(ended.map(\.status), [.paused, .done])
        let problem = try XCTUnwrap(ended.first?.problem)
        XCTAssertTrue(problem.message.contains("0.0.1") && problem.message.contains(engine.version), problem.message)
        XCTAssertEqual(ended.map(\.isForLater), [false, false], "another try would be refused too")
        let requests = try await unlearner.requests()
        XCTAssertEqual(requests.map(\.status), [.paused, .done])
        XCTAssertEqual(requests[0].reason, "stopped")
    }

    func testAPausedRequestDoesNotHoldUpTheNextOne() async throws {
        let folder = try Places.folder(self)
        let unlearner = try opened(folder, engine: try OrtEngine(threads: 1))
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        _ = try await unlearner.add(try Places.images("dog", 0..<9), to: "dog")
        let paused = try await dog(unlearner, maxSeconds: 1e-9)
        let next = try await unlearner.submit("cat", seed: 5)
        let ended = try await round(unlearner)
        XCTAssertEqual(ended.map(\.request), [paused, next])
        XCTAssertEqual(ended.map(\.status), [.paused, .done])
        XCTAssertEqual(ended.map(\.isForLater), [false, false], "over budget waits for the user")
        let again = try await round(unlearner)
        XCTAssertEqual(again, [])
    }

    func testAPauseThatEndsByItselfIsForLater() async throws {
        let folder = try Places.folder(self)
        let unlearner = try opened(folder, engine: try OrtEngine(threads: 1), device: StillDevice(free: 10))
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        _ = try await unlearner.submit("cat", seed: 5)
        let ended = try await round(unlearner)
        XCTAssertEqual(ended.map(\.status), [.paused])
        XCTAssertEqual(ended.map(\.isForLater), [true])
    }

    func testPausingEndsTheRound() async throws {
        let folder = try Places.folder(self)
        let unlearner = try opened(folder, engine: try OrtEngine(threads: 1))
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        _ = try await unlearner.add(try Places.images("dog", 0..<9), to: "dog")
        _ = try await unlearner.submit("cat", seed: 5, scalars: ["epochs": 100_000, "check_every": 0, "lr": 1e-6])
        let next = try await dog(unlearner)
        var ended: [Unlearner.Progress] = []
        for try await progress in unlearner.runQueue() {
            if progress.outcome != nil { ended.append(progress) } else { unlearner.pause() }
        }
        XCTAssertEqual(ended.map(\.outcome?.reason), ["stopped"])
        XCTAssertEqual(ended.map(\.isForLater), [true])
        let status = try await unlearner.status(of: next)
        XCTAssertEqual(status, .queued)
    }

    /// A program that cannot be loaded: the request has failed, the next one runs.
    func testABrokenRequestDoesNotHoldUpTheNextOne() async throws {
        struct Broken: Engine {
            let engine: OrtEngine
            let fails: Flag
            var name: String { engine.name }
            var version: String { engine.version }
            var backend: String { engine.backend }
            var threads: Int { engine.threads }
            func load(_ file: URL, program: Program) throws -> any Session {
                guard fails.isRaised else {
                    fails.raise()
                    throw ClueError(.engine, "the program \(program.name) cannot be loaded")
                }
                return try engine.load(file, program: program)
            }
        }
        let folder = try Places.folder(self)
        let unlearner = try opened(folder, engine: Broken(engine: try OrtEngine(threads: 1), fails: Flag()))
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        _ = try await unlearner.add(try Places.images("dog", 0..<9), to: "dog")
        _ = try await unlearner.submit("cat", seed: 5)
        _ = try await dog(unlearner)
        let ended = try await round(unlearner)
        XCTAssertEqual(ended.map(\.status), [.failed, .done])
        XCTAssertEqual(ended.first?.problem?.kind, .engine)
    }

    func testAnotherProcessThatRunsIsTold() async throws {
        let folder = try Places.folder(self)
        let unlearner = try opened(folder, engine: try OrtEngine(threads: 1))
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        _ = try await unlearner.submit("cat", seed: 5)
        let lock = StoreLock(folder: unlearner.folder)
        let (held, over) = (expectation(description: "held"), DispatchSemaphore(value: 0))
        Thread {
            try? lock.hold(wait: 1) {
                held.fulfill()
                over.wait()
            }
        }.start()
        await fulfillment(of: [held], timeout: 10)
        do {
            _ = try await round(unlearner)
            XCTFail("two run")
        } catch let error as ClueError {
            XCTAssertEqual(error.kind, .busy)
        }
        over.signal()
    }
}
