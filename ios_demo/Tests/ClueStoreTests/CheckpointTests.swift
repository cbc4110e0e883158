import Foundation
import XCTest

@testable import ClueCore

/// The file of a checkpoint: what is written is read back, and anything else starts the request anew.
final class CheckpointTests: XCTestCase {
    private func identity(
        engine: String = "onnx", version: String = "1", threads: Int = 1, base: String = "b", seed: UInt64 = 5
    ) -> Checkpoint.Identity {
        .init(request: 1, seed: seed, manifest: "m", base: base, engine: engine, version: version, threads: threads)
    }

    private func checkpoint(_ bundle: ClueBundle, samples: Int = 3) -> Checkpoint {
        var values: [String: FloatArray] = [:]
        for value in bundle.values {
            let array = FloatArray(shape: value.role == "cache" ? [samples] + value.shape : value.shape)
            for index in 0..<array.count { array.pointer[index] = value.storage == "bits" ? Float(index % 2) : Float(index) / 3 }
            values[value.name] = array
        }
        return Checkpoint(
            identity: identity(), cursor: 7, values: values, evidence: ["joules": .double(0.1), "text": .string("\"sha256\":")],
            cost: .object(["a": .array([.int(1), .null])]))
    }

    func testWhatIsWrittenIsReadBack() throws {
        let folder = try Places.folder(self)
        let bundle = try Places.bundle(in: folder)
        let path = folder.appendingPathComponent("one.safetensors")
        let written = checkpoint(bundle)
        try written.write(to: path, bundle: bundle)
        try written.write(to: path, bundle: bundle)
        let found = try XCTUnwrap(try Checkpoint.read(path, bundle: bundle, samples: 3))
        XCTAssertEqual(found.identity, written.identity)
        XCTAssertEqual(found.cursor, 7)
        XCTAssertEqual(found.evidence, written.evidence)
        XCTAssertEqual(found.cost, written.cost)
        XCTAssertEqual(Set(found.values.keys), Set(written.values.keys))
        for (name, array) in found.values {
            let other = try XCTUnwrap(written.values[name])
            XCTAssertEqual(array.shape, other.shape)
            XCTAssertEqual(Array(array.elements), Array(other.elements), name)
        }
    }

    /// In the contract's own way: `storage: bits` is packed eight to a byte, least significant bit first.
    func testBitsArePacked() throws {
        let folder = try Places.folder(self)
        let root = try Places.bundle(in: folder).root
        try Places.change(root) { text in
            let velocity = try XCTUnwrap(text.range(of: "\"velocity\": {"))
            let storage = try XCTUnwrap(text.range(of: "\"float32\"", range: velocity.upperBound..<text.endIndex))
            text.replaceSubrange(storage, with: "\"bits\"")
        }
        let bundle = try ClueBundle.open(root)
        let path = folder.appendingPathComponent("one.safetensors")
        let written = checkpoint(bundle)
        try written.write(to: path, bundle: bundle)
        XCTAssertEqual(
            try WeightsFile(path).bytes("velocity", dtype: "U8"), [UInt8](repeating: 0xAA, count: 6) + [0x02])
        let found = try XCTUnwrap(try Checkpoint.read(path, bundle: bundle, samples: 3)?.values["velocity"])
        XCTAssertEqual(Array(found.elements), (0..<51).map { Float($0 % 2) })
        try XCTUnwrap(written.values["velocity"]).pointer[3] = 0.5
        XCTAssertThrowsError(try written.write(to: path, bundle: bundle))
        XCTAssertNotNil(try Checkpoint.read(path, bundle: bundle, samples: 3), "the older one stays whole")
    }

    func testADamagedOneIsRemoved() throws {
        let folder = try Places.folder(self)
        let bundle = try Places.bundle(in: folder)
        let path = folder.appendingPathComponent("one.safetensors")
        try checkpoint(bundle).write(to: path, bundle: bundle)
        let whole = try RegularFile.small(path, most: 1 << 20)
        var damages: [[UInt8]] = [[], Array(whole.dropLast()), whole + [0], Array(whole.prefix(4))]
        for place in [0, 9, whole.count / 2, whole.count - 1] {
            var changed = whole
            changed[place] ^= 1
            damages.append(changed)
        }
        for damage in damages {
            try Data(damage).write(to: path)
            XCTAssertNil(try Checkpoint.read(path, bundle: bundle, samples: 3))
            XCTAssertFalse(Files.exists(path))
        }
        try Data(whole).write(to: path)
        XCTAssertNil(try Checkpoint.read(path, bundle: bundle, samples: 4), "another number of samples")
        XCTAssertNil(try Checkpoint.read(path, bundle: bundle, samples: 3), "none is there")
    }

    /// What cannot be read may be whole.
    func testOneThatCannotBeReadStays() throws {
        let folder = try Places.folder(self)
        let bundle = try Places.bundle(in: folder)
        let path = folder.appendingPathComponent("one.safetensors")
        try checkpoint(bundle).write(to: path, bundle: bundle)
        let file = try RegularFile(path)
        XCTAssertEqual(truncate(path.path, off_t(file.size - 1)), 0)
        XCTAssertThrowsError(try Checkpoint.read(file, bundle: bundle, samples: 3)) {
            XCTAssertTrue("\($0)".contains("has become shorter"), "\($0)")
        }
        XCTAssertTrue(Files.exists(path))
        XCTAssertNil(try Checkpoint.read(path, bundle: bundle, samples: 3), "opened anew it is damaged")
        XCTAssertFalse(Files.exists(path))
    }

    func testGoingOnWithSomethingElseIsRefusedNamingBoth() throws {
        let bundle = try Places.bundle(in: try Places.folder(self))
        let begun = checkpoint(bundle)
        XCTAssertNoThrow(try begun.check(against: identity()))
        for (here, words) in [
            (identity(engine: "coreml"), ["onnx 1", "coreml 1"]), (identity(version: "2"), ["onnx 1", "onnx 2"]),
            (identity(threads: 4), ["1 threads", "4"]), (identity(base: "other"), ["base weights b", "other"]),
            (identity(seed: 6), ["seed 5", "seed 6"]),
        ] {
            XCTAssertThrowsError(try begun.check(against: here)) { error in
                for word in words { XCTAssertTrue("\(error)".contains(word), "\(error)") }
            }
        }
    }
}
