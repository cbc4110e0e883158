import ClueOrt
import XCTest

@testable import ClueCore

#if os(Linux)
    /// Kills and failing disks, all real: child processes that die by SIGKILL, and a library in front of libc whose
    /// writes fail.
    final class CrashTests: XCTestCase {
        /// No early stop, checkpoints also within epochs: 29 operations.
        private static let request = ["cat", "6", "--set", "check_every=0", "--set", "epochs=3", "--checkpoint-steps", "3"]

        private let folder = try! TemporaryFolder()
        private var bundle: URL { folder.url.appendingPathComponent("toy") }
        private var store: URL { folder.url.appendingPathComponent("store") }
        private var before: URL { folder.url.appendingPathComponent("before") }
        private lazy var opened = Result { try ClueBundle.open(bundle) }

        /// What counts of how a store is left: rows, weights, records, receipts without times and measurements.
        private struct End: Equatable {
            var requests: [String] = []
            var evidence: [JSONObject] = []
            var weights: [String] = []
            var serving = ""
            var forgotten: [Int] = []
            var records: [String] = []
            var receipts: [String] = []
            var checkpoints: [String] = []
            var parts: [String] = []
        }

        override func setUpWithError() throws {
            _ = try folder.copy(Fixture.toy)
            let images = folder.url.appendingPathComponent("cats.safetensors")
            let cats = try Fixture.toyImages(of: "cat", 0..<7)
            let header = Safetensors.header(arrays: ["images": ("U8", [7, 4, 4, 1], cats.pixels.count)])
            try Data(header + cats.pixels).write(to: images)
            try succeed(["add", bundle.path, store.path, "cat", images.path])
            try succeed(["submit", bundle.path, store.path] + Self.request)
            try FileManager.default.copyItem(at: store, to: before)
        }

        private func succeed(_ arguments: [String]) throws {
            let ended = try CommandLineTool.run(arguments)
            XCTAssertEqual(ended.code, 0, ended.errors)
        }

        private func reset() throws {
            try FileManager.default.removeItem(at: store)
            try FileManager.default.copyItem(at: before, to: store)
        }

        private var serve: [String] { ["run", bundle.path, store.path, "--progress"] }

        private func end() throws -> End {
            let opened = try ForgetStore(folder: store, bundle: opened.get(), signers: FileSigners())
            defer { opened.close() }
            var end = End()
            for request in try opened.requests() {
                end.requests.append("\(request.id) \(request.status.rawValue) \(request.reason ?? "-")")
                end.evidence.append(request.evidence)
            }
            let generations = try opened.generations()
            end.weights = generations.map(\.sha256)
            end.serving = try opened.serving().sha256
            for generation in generations where generation.erased == nil {
                XCTAssertEqual(try RegularFile.sha256(generation.file), generation.sha256)
            }
            end.forgotten = try opened.forgotten()
            end.records = try CostLog(opened.records()).records.map { "\($0.request) \($0.phase) \($0.steps)" }
            end.receipts = try opened.receipts().map { "\($0.number) \($0.kind)" }
            func files(_ name: String) -> [String] {
                let place = store.appendingPathComponent(name).path
                return ((try? FileManager.default.contentsOfDirectory(atPath: place)) ?? []).sorted()
            }
            end.checkpoints = files("checkpoints")
            end.parts = (files("") + files("generations") + files("checkpoints")).filter { $0.hasSuffix(".part") }
            return end
        }

        func testKilledThirtyTimesTheRequestEndsAsIfUndisturbed() throws {
            try succeed(serve)
            let expected = try end()
            XCTAssertEqual(expected.requests, ["1 done -"])
            XCTAssertEqual(expected.forgotten, [0])
            var (kills, runs): (Int, Int) = (0, 0)
            var draw = SeededDraw(state: 3)
            while kills < 30 {
                try reset()
                // Up to four kills of the same request, each further on; from a random operation to its end.
                for _ in 0..<Int.random(in: 1...4, using: &draw) {
                    runs += 1
                    kills += try CommandLineTool.run(serve, killAt: Int.random(in: 1...29, using: &draw)).killed ? 1 : 0
                }
                try succeed(serve)
                XCTAssertEqual(try end(), expected, "after \(kills) kills")
                XCTAssertLessThan(runs, 100, "hardly any process was killed")
            }
            print("crashes: \(kills) kills in \(runs) runs")
        }

        func testDisksThatFailLeaveOldOrNewWeights() throws {
            let disk = try armed()
            try succeed(serve)
            let (old, new) = (try opened.get().weights.sha256, try end().serving)
            let expected = try end()
            XCTAssertNotEqual(old, new)
            try reset()
            let writes = try count(disk)
            XCTAssertGreaterThan(writes, 50)
            var told: Set<Bool> = []
            // A disk that fails once, and one that stays full, at calls from the first to the last.
            for (number, at) in stride(from: 1, through: writes, by: max(1, writes / 16)).enumerated() {
                try reset()
                var failing = disk
                (failing.mode, failing.at, failing.calls) = (number % 2 == 0 ? .fail : .failFrom, at, "wtsr")
                let ended = try CommandLineTool.run(serve, disk: failing)
                XCTAssertFalse(ended.killed)
                told.insert(ended.code == 0)
                if ended.code != 0 { XCTAssertFalse(ended.errors.isEmpty && ended.output.isEmpty) }
                let left = try end()
                XCTAssertTrue([old, new].contains(left.serving), "call \(at)")
                XCTAssertEqual(left.serving == new, left.requests == ["1 done -"], "call \(at): \(left.requests)")
                if left.serving == new { XCTAssertEqual(left.weights, expected.weights) }
            }
            XCTAssertTrue(told.contains(false), "no failing disk was noticed")
        }

        func testThePowerFailsAtAnyWriteAndTheRequestGoesOn() throws {
            let disk = try armed()
            try succeed(serve)
            let expected = try end()
            try reset()
            let calls = try count(disk)
            let modes: [CommandLineTool.Disk.Mode] = [.killBefore, .killAfter, .killWithin]
            for (number, at) in stride(from: 2, through: calls, by: max(1, calls / 12)).enumerated() {
                try reset()
                var failing = disk
                (failing.mode, failing.at, failing.calls) = (modes[number % 3], at, "wtsr")
                XCTAssertTrue(try CommandLineTool.run(serve, disk: failing).killed, "call \(at)")
                try succeed(serve)
                XCTAssertEqual(try end(), expected, "call \(at)")
            }
        }

        /// The disk under the store, watched and whole.
        private func armed() throws -> CommandLineTool.Disk {
            let source = Fixture.contract.deletingLastPathComponent().appendingPathComponent(
                "tests/pi_runtime/crash_shim.c")
            let shim = folder.url.appendingPathComponent("shim.so")
            let compiler = Process()
            compiler.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            compiler.arguments = ["cc", "-O1", "-shared", "-fPIC", "-o", shim.path, source.path, "-ldl"]
            try compiler.run()
            compiler.waitUntilExit()
            XCTAssertEqual(compiler.terminationStatus, 0, "the shim does not compile")
            return CommandLineTool.Disk(shim: shim, folder: store)
        }

        /// How many writes, truncations, flushes and renames an undisturbed run makes.
        private func count(_ disk: CommandLineTool.Disk) throws -> Int {
            var watched = disk
            let trace = folder.url.appendingPathComponent("trace")
            (watched.trace, watched.calls) = (trace.path, "wtsr")
            XCTAssertEqual(try CommandLineTool.run(serve, disk: watched).code, 0)
            // Each call: its letter, the lengths of path and data with the offset (20 bytes), path, data.
            let content = [UInt8](try Data(contentsOf: trace))
            func whole(_ place: Int, _ size: Int) -> Int {
                content[place..<place + size].reversed().reduce(0) { $0 << 8 | Int($1) }
            }
            var (place, calls) = (0, 0)
            while place < content.count {
                if "wtsr".utf8.contains(content[place]) { calls += 1 }
                place += 21 + whole(place + 1, 4) + whole(place + 13, 8)
            }
            return calls
        }
    }

    /// Numbers that are the same in every run of the tests.
    private struct SeededDraw: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 1
            let words = Philox(seed: state, stream: 99, epoch: 0).words(position: 0, count: 2)
            return UInt64(words[0]) << 32 | UInt64(words[1])
        }
    }
#endif
