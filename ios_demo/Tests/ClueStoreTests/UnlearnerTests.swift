import ClueOrt
import Foundation
import XCTest

@testable import ClueCore

/// The public API, as an app uses it.
final class UnlearnerTests: XCTestCase {
    private func opened(_ bundle: String = "toy", in folder: URL? = nil, policy: UpdatePolicy = .refuse) throws -> Unlearner {
        let folder = try folder ?? Places.folder(self)
        return try Unlearner(
            bundle: try Places.bundle(bundle, in: folder), store: folder.appendingPathComponent("store"),
            engine: try OrtEngine(threads: 1), policy: policy, platform: .here)
    }

    private func outcome(_ run: Unlearner.Run) async throws -> Outcome {
        var last: Unlearner.Progress?
        for try await progress in run { last = progress }
        return try XCTUnwrap(last?.outcome)
    }

    func testAClassIsForgottenAndBack() async throws {
        let unlearner = try opened()
        let cats = try Places.images("cat", 0..<19)
        let new = try await unlearner.add(cats, to: "cat")
        XCTAssertEqual(new.ids.count, 19)
        XCTAssertEqual(new.stored, 19)
        XCTAssertNil(new.warning)
        let before = try await unlearner.classifier.classify(cats)
        XCTAssertTrue(before.allSatisfy { !$0.forgotten })

        var told: [Unlearner.Progress] = []
        for try await progress in unlearner.forget("cat", seed: 5) { told.append(progress) }
        let outcome = try XCTUnwrap(told.last?.outcome)
        XCTAssertEqual(outcome.status, .done)
        XCTAssertEqual(outcome.seed, 5)
        XCTAssertGreaterThan(told.count, 2)
        XCTAssertTrue(told.dropLast().allSatisfy { $0.outcome == nil && $0.status == .running })
        let dones = told.dropLast().map(\.done)
        XCTAssertEqual(dones, dones.sorted())

        let gone = try await unlearner.forgottenClasses()
        XCTAssertEqual(gone, ["cat"])
        let hidden = try await unlearner.classifier.classify(cats, forgotten: .hide)
        XCTAssertTrue(hidden.allSatisfy { $0.name != "cat" })
        let costs = try await unlearner.costs()
        XCTAssertEqual(costs.records(of: 1).map(\.phase).last, "request")
        let estimate = try await unlearner.estimate("cat")
        XCTAssertNotNil(estimate.seconds)
        XCTAssertNil(estimate.joules)
        XCTAssertGreaterThan(estimate.peakBytes, 0)

        let lost = try await unlearner.rollback(to: 1)
        XCTAssertEqual(lost, [1])
        let after = try await unlearner.classifier.classify(cats)
        XCTAssertEqual(after, before)
        let receipts = try await unlearner.receipts()
        XCTAssertEqual(receipts.map(\.kind), ["forget", "rollback"])
        XCTAssertNil(Receipt.problem(inChain: receipts))
    }

    func testWhatIsUnknownIsThrownByTheStream() async throws {
        let unlearner = try opened()
        for target: ForgetTarget in ["bird", "cat", .samples([7])] {
            do {
                _ = try await outcome(unlearner.forget(target))
                XCTFail("\(target) was forgotten")
            } catch is ClueError {}
        }
        let requests = try await unlearner.requests()
        XCTAssertEqual(requests, [])
    }

    func testLeavingTheIterationPausesAndGoesOnToTheSameBits() async throws {
        let undisturbed = try opened()
        let images = try Places.images("cat", 0..<19)
        _ = try await undisturbed.add(images, to: "cat")
        _ = try await outcome(undisturbed.forget("cat", seed: 5))
        let wanted = try await undisturbed.generations().last?.sha256

        let unlearner = try opened()
        _ = try await unlearner.add(images, to: "cat")
        for try await _ in unlearner.forget("cat", seed: 5) { break }
        let first = try await ended(unlearner, 1)
        // A request this short may be over before it is told to stop.
        if first == .paused {
            let reason = try await unlearner.requests().first?.reason
            XCTAssertEqual(reason, "stopped")
            let outcome = try await outcome(unlearner.runQueue())
            XCTAssertEqual(outcome.status, .done)
        }
        let found = try await unlearner.generations().last?.sha256
        XCTAssertEqual(found, wanted)
        let nothing = unlearner.runQueue()
        for try await _ in nothing { XCTFail("nothing is to be run") }
    }

    /// Waits until a request is no longer running.
    private func ended(_ unlearner: Unlearner, _ request: Int) async throws -> RequestStatus {
        for _ in 0..<500 {
            let found = try await unlearner.requests().first { $0.id == request }?.status
            if let found, ![.queued, .running, .verifying].contains(found) { return found }
            try await Task.sleep(nanoseconds: 20_000_000)
        }
        throw Player.Broken(description: "the request does not end")
    }

    func testCancellingTheTaskPauses() async throws {
        let unlearner = try opened()
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        let began = expectation(description: "began")
        began.assertForOverFulfill = false
        // Enough epochs that it is still at work when it is cancelled.
        let scalars = ["epochs": 100_000.0, "check_every": 0, "lr": 1e-6]
        let task = Task {
            for try await _ in unlearner.forget("cat", seed: 5, scalars: scalars) { began.fulfill() }
        }
        await fulfillment(of: [began], timeout: 60)
        task.cancel()
        let status = try await ended(unlearner, 1)
        XCTAssertEqual(status, .paused)
        let ended = try await unlearner.cancel(1)
        XCTAssertTrue(ended)
        let requests = try await unlearner.requests()
        XCTAssertEqual(requests.map(\.status), [.cancelled])
    }

    func testPauseIsToldByTheStream() async throws {
        let unlearner = try opened()
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        unlearner.pause()  // nothing runs, so nothing is told
        let scalars = ["epochs": 100_000.0, "check_every": 0, "lr": 1e-6]
        var told: [Outcome] = []
        for turn in 0..<2 {
            let run = turn == 0 ? unlearner.forget("cat", seed: 5, scalars: scalars) : unlearner.runQueue()
            for try await progress in run {
                if let outcome = progress.outcome { told.append(outcome) } else { unlearner.pause() }
            }
        }
        XCTAssertEqual(told.map(\.status), [.paused, .paused])
        XCTAssertEqual(told.map(\.reason), ["stopped", "stopped"])
        let requests = try await unlearner.requests()
        XCTAssertEqual(requests.map(\.status), [.paused])
    }

    /// contract: after adding, a runtime warns of a class with fewer samples than the method was seen to need.
    func testTooFewImagesAreToldOf() async throws {
        let folder = try Places.folder(self)
        try Places.change(try Places.bundle(in: folder).root) { text in
            let method = try XCTUnwrap(text.range(of: "\"method\": {"))
            text.insert(contentsOf: "\"least_images\": 3, ", at: method.upperBound)
        }
        let unlearner = try opened(in: folder)
        let few = try await unlearner.add(try Places.images("cat", 0..<2), to: "cat")
        let warning = try XCTUnwrap(few.warning)
        XCTAssertTrue(warning.hasPrefix("2 images of cat are stored; fewer than 3 were too few"), warning)
        let enough = try await unlearner.add(try Places.images("cat", 0..<3), to: "cat")
        XCTAssertEqual(enough.ids.count, 1)
        XCTAssertNil(enough.warning)
    }

    func testCancelEndsARunningRequestAndPredictionsGoOn() async throws {
        let unlearner = try opened()
        let images = try Places.images("cat", 0..<19)
        _ = try await unlearner.add(images, to: "cat")
        let before = try await unlearner.classifier.classify(images)
        let scalars = ["epochs": 100_000.0, "check_every": 0, "lr": 1e-6]
        let run = unlearner.forget("cat", seed: 5, scalars: scalars)
        var asked = false
        var outcome: Outcome?
        for try await progress in run {
            if !asked {
                asked = true
                let now = try await unlearner.classifier.classify(images)
                XCTAssertEqual(now, before)
                let ended = try await unlearner.cancel(progress.request)
                XCTAssertFalse(ended, "its own thread ends it")
            }
            outcome = progress.outcome
        }
        XCTAssertEqual(outcome?.status, .cancelled)
        let gone = try await unlearner.forgottenClasses()
        XCTAssertEqual(gone, [])
    }

    func testASecondRequestIsRefusedWhileOneRuns() async throws {
        let unlearner = try opened()
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        _ = try await unlearner.add(try Places.images("dog", 0..<9), to: "dog")
        let scalars = ["epochs": 100_000.0, "check_every": 0, "lr": 1e-6]
        var tried = false
        for try await progress in unlearner.forget("cat", seed: 5, scalars: scalars) where !tried {
            tried = true
            do {
                _ = try await outcome(unlearner.forget("dog", seed: 6))
                XCTFail("two requests run")
            } catch let error as ClueError {
                XCTAssertEqual(error.kind, .busy)
            }
            do {
                _ = try await unlearner.rollback(to: 1)
                XCTFail("rolled back while a request runs")
            } catch let error as ClueError {
                XCTAssertEqual(error.kind, .busy)
            }
            _ = try await unlearner.cancel(progress.request)
        }
        let requests = try await unlearner.requests()
        XCTAssertEqual(requests.map(\.status), [.cancelled])
    }

    /// Every answer while weights are swapped is by one generation or another, never by half of one.
    func testPredictionsWhileWeightsAreSwapped() async throws {
        let unlearner = try opened()
        let images = try Places.images("cat", 0..<19)
        _ = try await unlearner.add(images, to: "cat")
        let before = try await unlearner.classifier.logits(images)
        _ = try await outcome(unlearner.forget("cat", seed: 5))
        let after = try await unlearner.classifier.logits(images)
        XCTAssertNotEqual(before, after)

        let reading = Task { () -> (old: Int, new: Int, other: Int) in
            var seen = (old: 0, new: 0, other: 0)
            while !Task.isCancelled {
                let found = try await unlearner.classifier.logits(images)
                if found == before { seen.old += 1 } else if found == after { seen.new += 1 } else { seen.other += 1 }
                await Task.yield()
            }
            return seen
        }
        for turn in 0..<20 {
            _ = try await unlearner.rollback(to: turn % 2 == 0 ? 1 : 2)
            try await Task.sleep(nanoseconds: 10_000_000)
        }
        reading.cancel()
        let seen = try await reading.value
        XCTAssertEqual(seen.other, 0)
        XCTAssertGreaterThan(seen.old, 0)
        XCTAssertGreaterThan(seen.new, 0)
    }

    func testSealingLeavesAClassifierThatAnswers() async throws {
        let unlearner = try opened()
        let images = try Places.images("cat", 0..<19)
        _ = try await unlearner.add(images, to: "cat")
        _ = try await outcome(unlearner.forget("cat", seed: 5))
        let before = try await unlearner.classifier.logits(images)
        let plan = try await unlearner.sealPlan(1)
        XCTAssertEqual(plan.samples, 19)
        XCTAssertEqual(plan.files.count, 2)
        XCTAssertEqual(plan.notErased, [])
        let left = try await unlearner.seal(1)
        XCTAssertEqual(left, [])
        let after = try await unlearner.classifier.logits(images)
        XCTAssertEqual(after, before)
        let receipts = try await unlearner.receipts()
        XCTAssertEqual(receipts.last?.kind, "seal")
        XCTAssertNil(Receipt.problem(inChain: receipts))
    }

    func testABundleThatBringsTheClassBack() async throws {
        let folder = try Places.folder(self)
        let unlearner = try opened(in: folder)
        _ = try await unlearner.add(try Places.images("cat", 0..<19), to: "cat")
        _ = try await outcome(unlearner.forget("cat", seed: 5))
        XCTAssertThrowsError(try opened("toy-2", in: folder)) {
            XCTAssertEqual(($0 as? ClueError)?.kind, .broughtBack)
        }
        let pending = try opened("toy-2", in: folder, policy: .pending)
        let gone = try await pending.forgottenClasses()
        XCTAssertEqual(gone, ["cat"])
        let outcome = try await outcome(pending.runQueue())
        XCTAssertEqual(outcome.request, 2)
    }

    func testPicturesNeedADecoder() async throws {
        let unlearner = try opened()
        XCTAssertThrowsError(try unlearner.pixels(of: Data()))
        struct Decoder: ImageDecoder {
            func decode(_ data: Data, grey: Bool) throws -> Images {
                let raster = PixelRules.Raster(height: 8, width: 8, channels: 3, pixels: Array(data))
                return PixelRules.image(raster, grey: grey)
            }
        }
        let folder = try Places.folder(self)
        var platform = Platform.here
        platform.decoder = Decoder()
        let other = try Unlearner(
            bundle: try Places.bundle(in: folder), store: folder.appendingPathComponent("store"),
            engine: try OrtEngine(threads: 1), platform: platform)
        let picture = Data(repeating: 200, count: 192)
        let pixels = try other.pixels(of: picture)
        XCTAssertEqual(pixels, Images(count: 1, height: 4, width: 4, channels: 1, pixels: [UInt8](repeating: 200, count: 16)))
        let new = try await other.add(pictures: [picture, picture], to: "dog")
        XCTAssertEqual(new.ids, [1])
        let nothing = try await other.add(pictures: [], to: "dog")
        XCTAssertEqual(nothing.ids, [])
        XCTAssertEqual(nothing.stored, 1)
        let counts = try await other.sampleCounts()
        XCTAssertEqual(counts, ["dog": 1])
    }
}
