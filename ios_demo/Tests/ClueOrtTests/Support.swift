import ClueOrt
import Foundation
import XCTest

@testable import ClueCore

/// Folders of the repository that tests read.
enum Fixture {
    static let contract = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("contract")
    static let toy = contract.appendingPathComponent("scenarios/bundles/toy")

    /// What tests/ios_demo/make_reference.py has written; `make test-ios` names it.
    static func digits() throws -> URL {
        guard let path = ProcessInfo.processInfo.environment["CLUE_DIGITS"] else {
            throw XCTSkip("CLUE_DIGITS does not name a folder of tests/ios_demo/make_reference.py")
        }
        return URL(fileURLWithPath: path)
    }

    static func json(_ url: URL) throws -> JSON {
        try StrictJSON.parse(RegularFile.small(url, most: 1 << 24), maxBytes: 1 << 24)
    }

    /// Images of classes of the toy bundle, uint8 [n, 4, 4, 1].
    static func toyImages(of name: String, _ range: Range<Int>) throws -> Images {
        let arrays = try WeightsFile(contract.appendingPathComponent("scenarios/images.safetensors"))
        let shape = try XCTUnwrap(arrays.shape(name))
        let all = Images(
            count: shape[0], height: shape[1], width: shape[2], channels: shape[3],
            pixels: try arrays.bytes(name, dtype: "U8"))
        return all.at(Array(range))
    }
}

/// A folder of its own for a test, removed afterwards.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("clue-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func copy(_ source: URL) throws -> URL {
        let copy = url.appendingPathComponent(source.lastPathComponent)
        try FileManager.default.copyItem(at: source, to: copy)
        return copy
    }
}

/// Counts steps; a request's own meter is the store side's.
final class CountingMeter: Meter {
    private(set) var steps = 0
    private(set) var ran: [String: Int] = [:]
    private(set) var loadedPhases: [String] = []

    init(steps: Int = 0) { self.steps = steps }

    func measure<T>(_ phase: String, batch: Int?, step: Bool, _ body: () throws -> T) throws -> T {
        let result = try body()
        if step { steps += 1 }
        return result
    }

    func loaded(seconds: Double, phase: String) { loadedPhases.append(phase) }

    func worked(_ program: Program, times: Int) { ran[program.name, default: 0] += times }
}

/// An engine that notes what its programs are given besides weights, and the bits that they write.
final class Recorder: Engine, @unchecked Sendable {  // one test's thread uses it
    struct Run: Equatable {
        let program: String
        let inputs: [String: String]
    }

    let bundle: ClueBundle
    let engine: OrtEngine
    var runs: [Run] = []
    var bits: [[Float]] = []

    init(_ bundle: ClueBundle) throws {
        self.bundle = bundle
        engine = try OrtEngine(threads: 1)
    }

    var name: String { engine.name }
    var version: String { engine.version }
    var backend: String { engine.backend }
    var threads: Int { engine.threads }

    func load(_ file: URL, program: Program) throws -> any Session {
        Recorded(recorder: self, session: try engine.load(file, program: program), program: program)
    }

    private final class Recorded: Session {
        let recorder: Recorder
        let session: any Session
        let program: Program

        init(recorder: Recorder, session: any Session, program: Program) {
            (self.recorder, self.session, self.program) = (recorder, session, program)
        }

        func run(inputs: [FloatArray], outputs: [FloatArray]) throws {
            var given: [String: String] = [:]
            for (port, array) in zip(program.inputs, inputs) where !["state", "carry", "cache"].contains(port.role) {
                given[port.name] = Sha256.hex(array.bytes)
            }
            recorder.runs.append(Run(program: program.name, inputs: given))
            try session.run(inputs: inputs, outputs: outputs)
            for (port, array) in zip(program.outputs, outputs)
            where recorder.bundle.value(port.binds)?.storage == "bits" {
                recorder.bits.append(Array(array))
            }
        }
    }
}
