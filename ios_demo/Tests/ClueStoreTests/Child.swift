import ClueOrt
import Foundation
import XCTest

@testable import ClueCore

/// A process of its own that opens a store, does one thing and is killed on its way: this test program, started anew with the test
/// `testActs` alone, which then acts as the environment says.
struct Child: Codable {
    enum Action: String, Codable { case run, seal }

    let action: Action
    let request: Int
    /// Where it dies; contract/scenarios.md names the points.
    let point: String
    /// For the point `operation`: after how many.
    let after: Int

    private struct Told: Codable {
        let child: Child
        let bundle: String
        let store: String
    }

    private static let variable = "CLUE_STORE_TESTS_CHILD"

    /// Starts the process and waits until it has been killed. Throws where it ended in another way.
    func runToDeath(bundle: URL, store: URL) throws {
        #if os(Linux)
            let told = Told(child: self, bundle: bundle.path, store: store.path)
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            process.arguments = ["ClueStoreTests.ChildTests/testActs"]
            process.environment = ProcessInfo.processInfo.environment.merging([
                Self.variable: String(decoding: try JSONEncoder().encode(told), as: UTF8.self)
            ]) { $1 }
            let output = Pipe()
            (process.standardOutput, process.standardError) = (output, output)
            try process.run()
            let said = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            guard process.terminationReason == .uncaughtSignal, process.terminationStatus == SIGKILL else {
                throw Player.Broken(
                    description: "the process was to be killed, and ended by itself: \(String(decoding: said, as: UTF8.self))")
            }
        #else
            throw XCTSkip("processes are killed in the tests on Linux only")
        #endif
    }

    /// What this process is to do, where it is such a child.
    static func actIfAsked() throws {
        guard let text = ProcessInfo.processInfo.environment[variable] else { return }
        let told = try JSONDecoder().decode(Told.self, from: Data(text.utf8))
        let store = try ForgetStore(
            folder: URL(fileURLWithPath: told.store), bundle: try ClueBundle.open(URL(fileURLWithPath: told.bundle)),
            signers: FileSigners())
        try told.child.act(store)
        XCTFail("it should have been killed")
    }

    private func act(_ store: ForgetStore) throws {
        let moments: [String: ForgetStore.Moment] = [
            "weights_written": .finishing, "swapped": .finished, "seal_began": .sealing(.rows),
            "rows_erased": .sealing(.files), "files_erased": .sealing(.database),
        ]
        let deadly = moments[point]
        store.observer = { if $0 == deadly { Self.die() } }
        switch action {
        case .seal: _ = try store.seal(request)
        case .run:
            var done = 0
            let control = Control(progress: { _ in
                done += 1
                if point == "operation" && done >= after { Self.die() }
            })
            let desk = Desk(store: store, engine: try OrtEngine(threads: 1), device: Platform.here.device)
            _ = try desk.run(request, control)
        }
    }

    private static func die() {
        kill(getpid(), SIGKILL)
        while true { sleep(1) }
    }
}

final class ChildTests: XCTestCase {
    /// Does nothing unless this process is a child.
    func testActs() throws { try Child.actIfAsked() }
}
