import ClueOrt
import XCTest

@testable import ClueCore

#if os(Linux)
    /// Predictions by several classifiers while requests run and their weights are swapped in.
    final class SwapTests: XCTestCase {
        func testEveryAnswerIsByOneGenerationWhileRequestsSwapTheirsIn() async throws {
            let folder = try TemporaryFolder()
            let bundle = try ClueBundle.open(folder.copy(Fixture.toy))
            let store = folder.url.appendingPathComponent("store")
            let images = try Fixture.toyImages(of: "dog", 0..<13)
            let platform = Platform(device: LinuxDevice(), signers: FileSigners())
            let unlearner = try Unlearner(
                bundle: bundle, store: store, engine: OrtEngine(threads: 1), platform: platform)
            for name in ["cat", "dog"] { _ = try await unlearner.add(Fixture.toyImages(of: name, 0..<9), to: name) }

            // Each has a connection of its own to the store, as an app and its extension have.
            let readers = try (0..<3).map { _ in
                let other = try Unlearner(
                    bundle: bundle, store: store, engine: OrtEngine(threads: 1), platform: platform)
                return Task { () -> [[[Float]]] in
                    var seen: [[[Float]]] = []
                    while !Task.isCancelled {
                        let found = try await other.classifier.logits(images)
                        if !seen.contains(found) { seen.append(found) }
                        await Task.yield()  // else readers keep all threads that tasks have
                    }
                    return seen
                }
            }
            for (seed, name) in ["cat", "dog"].enumerated() {
                let scalars = ["epochs": 12.0, "check_every": 0, "lr": 0.005]
                var outcome: Outcome?
                for try await progress in unlearner.forget(.classNamed(name), seed: UInt64(seed), scalars: scalars) {
                    outcome = progress.outcome
                }
                XCTAssertEqual(outcome?.status, .done, outcome?.reason ?? "")
                try await Task.sleep(nanoseconds: 300_000_000)
            }
            let server = WeightsServer(bundle: bundle, engine: try OrtEngine(threads: 1))
            let known = try await unlearner.generations().map {
                try server.logits(images, weights: $0.file, sha256: $0.sha256)
            }
            XCTAssertEqual(known.count, 3)
            for reader in readers {
                reader.cancel()
                let seen = try await reader.value
                XCTAssertTrue(seen.allSatisfy(known.contains), "an answer was by no generation")
                XCTAssertTrue(known.last.map(seen.contains) == true, "the last weights never answered")
                XCTAssertGreaterThan(seen.count, 1, "no swap was seen")
            }
        }
    }
#endif
