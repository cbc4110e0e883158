import ClueOrt
import XCTest

@testable import ClueCore

#if os(Linux)
    /// clue-swift as its users see it.
    final class CommandTests: XCTestCase {
        private struct FourThreads: Engine {
            let engine: OrtEngine
            var name: String { engine.name }
            var version: String { engine.version }
            var backend: String { engine.backend }
            var threads: Int { 4 }
            func load(_ file: URL, program: Program) throws -> any Session { try engine.load(file, program: program) }
        }

        func testRunPassesOverWhatIsRefused() throws {
            let folder = try TemporaryFolder()
            let root = try folder.copy(Fixture.toy)
            let place = folder.url.appendingPathComponent("store")
            let store = try ForgetStore(folder: place, bundle: ClueBundle.open(root), signers: FileSigners())
            defer { store.close() }
            _ = try store.add(try Fixture.toyImages(of: "cat", 0..<7), label: 0)
            _ = try store.add(try Fixture.toyImages(of: "dog", 0..<7), label: 1)
            let desk = Desk(store: store, engine: FourThreads(engine: try OrtEngine(threads: 1)), device: LinuxDevice())
            let refused = try desk.submit("cat", seed: 5, scalars: ["check_every": 0], options: .init())
            var done = 0
            let control = Control(progress: { done = $0.done }, stop: { done >= 4 })
            XCTAssertEqual(try desk.run(refused, control).status, .paused)
            var options = Options()
            options.accuracyAtMost = 100
            let next = try desk.submit("dog", seed: 6, scalars: [:], options: options)

            let ended = try CommandLineTool.run(["run", root.path, place.path])
            XCTAssertEqual(ended.code, 2)
            XCTAssertTrue(ended.errors.contains("clue-swift: request \(refused): "), ended.errors)
            XCTAssertTrue(ended.errors.contains("4 threads"), ended.errors)
            XCTAssertTrue(ended.output.hasPrefix("done\n"), ended.output)
            XCTAssertEqual(try store.status(refused), .paused)
            XCTAssertEqual(try store.status(next), .done)
        }
    }
#endif
