import XCTest

@testable import ClueCore

/// Bundles that are not as export writes them, by the toy bundle of contract/scenarios.
final class BundleTests: XCTestCase {
    /// A copy of the toy bundle whose manifest was changed and hashed again.
    private func edited(_ changes: [(String, String)]) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        let manifest = try folder.toyBundle().appendingPathComponent("manifest.json")
        var text = try String(contentsOf: manifest, encoding: .utf8)
        for (old, new) in changes {
            XCTAssertTrue(text.contains(old), "the toy's manifest has no \(old)")
            text = text.replacingOccurrences(of: old, with: new)
        }
        try text.write(to: manifest, atomically: true, encoding: .utf8)
        try Sha256.hex(text.utf8).write(
            to: manifest.deletingLastPathComponent().appendingPathComponent("manifest.sha256"), atomically: true,
            encoding: .utf8)
        return folder
    }

    private func toy(_ folder: TemporaryFolder) -> URL { folder.url.appendingPathComponent("toy.clue") }

    func testWhatTheManifestSays() throws {
        let folder = try TemporaryFolder()
        let bundle = try ClueBundle.open(folder.toyBundle())
        XCTAssertEqual(bundle.classes, ["cat", "dog", "10"])
        XCTAssertEqual(bundle.inputShape, [1, 4, 4])
        XCTAssertEqual(
            bundle.values.map(\.name), ["params", "frozen", "importance", "velocity", "kick", "origin", "teach"])
        XCTAssertEqual(bundle.programs.map(\.name), ["predict", "predict_1", "note", "step", "shrink"])
        XCTAssertEqual(bundle.plan.leaves.map(\.phase), ["teach", "learn", "learn", "learn", "learn", "finish"])
        XCTAssertEqual(Values.swapped(bundle), ["params", "velocity"])
        XCTAssertEqual(bundle.valuesBytes(samples: 5), 4 * (2 * 51 + 1 + 51 + 2 * 51 + 51 + 51 + 5 * 3))
        XCTAssertEqual(bundle.plannedPeak(samples: 5), bundle.valuesBytes(samples: 5) + 1000)
        XCTAssertEqual(try bundle.label("dog"), 1)
        XCTAssertEqual(try bundle.label("10"), 2, "a name goes before a number")
        XCTAssertEqual(try bundle.label("0"), 0)
        XCTAssertTrue(sentence(.invalid) { _ = try bundle.label("dgo") }.contains("did you mean 'dog'?"))
        XCTAssertTrue(sentence(.invalid) { _ = try bundle.label("3") }.contains("0 to 2"))
        XCTAssertTrue(sentence(.invalid) { _ = try bundle.merged(scalars: ["lr": 1e39]) }.contains("float32"))
        XCTAssertTrue(sentence(.invalid) { _ = try bundle.merged(scalars: ["l": 1]) }.contains("'lr'"))
        XCTAssertEqual(try bundle.merged(scalars: ["lr": 1])["lr"], 1)
    }

    func testAFlippedByteOfAnyFileIsSeen() throws {
        let folder = try TemporaryFolder()
        let root = try folder.toyBundle()
        let names = try ClueBundle.open(root).files.keys.sorted() + ["manifest.json", "manifest.sha256"]
        XCTAssertGreaterThan(names.count, 10)
        for name in names {
            let place = root.appendingPathComponent(name)
            let whole = try Data(contentsOf: place)
            var changed = whole
            changed[whole.count / 2] ^= 1
            try changed.write(to: place)
            let told = sentence(.bundle) { _ = try ClueBundle.open(root) }
            XCTAssertTrue(told.contains(name.hasPrefix("manifest") ? "manifest" : name), told)
            try (whole + [0]).write(to: place)
            if !name.hasPrefix("manifest") {
                XCTAssertTrue(sentence(.bundle) { _ = try ClueBundle.open(root, verify: false) }.contains("bytes"))
            }
            try FileManager.default.removeItem(at: place)
            XCTAssertThrowsError(try ClueBundle.open(root), name) { XCTAssertTrue($0 is ClueError) }
            try whole.write(to: place)
        }
        XCTAssertNoThrow(try ClueBundle.open(root))
    }

    func testABundleWithoutItsRuntimeFolderIsWhole() throws {
        let row =
            #"{"file": "runtime/build", "bytes": 3, "#
            + #""sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}, "#
        let folder = try edited([(#""files": ["#, #""files": ["# + row)])
        let runtime = toy(folder).appendingPathComponent("runtime")
        XCTAssertNoThrow(try ClueBundle.open(toy(folder)))
        try FileManager.default.createDirectory(at: runtime, withIntermediateDirectories: false)
        XCTAssertTrue(sentence(.bundle) { _ = try ClueBundle.open(self.toy(folder)) }.contains("missing"))
        try Data("abd".utf8).write(to: runtime.appendingPathComponent("build"))
        XCTAssertTrue(sentence(.bundle) { _ = try ClueBundle.open(self.toy(folder)) }.contains("changed"))
        try Data("abc".utf8).write(to: runtime.appendingPathComponent("build"))
        XCTAssertNoThrow(try ClueBundle.open(toy(folder)))
    }

    func testErasedWeightsOpenWhereTheirMarkIs() throws {
        let folder = try TemporaryFolder()
        let root = try folder.toyBundle()
        let weights = root.appendingPathComponent("weights.safetensors")
        try FileManager.default.moveItem(at: weights, to: ClueBundle.erasedMark(weights))
        XCTAssertNoThrow(try ClueBundle.open(root))
        try FileManager.default.removeItem(at: ClueBundle.erasedMark(weights))
        XCTAssertTrue(sentence(.bundle) { _ = try ClueBundle.open(root) }.contains("missing"))
    }

    func testLinksAreRefused() throws {
        for name in ["README.md", "golden"] {
            let folder = try TemporaryFolder()
            let root = try folder.toyBundle()
            let (place, moved) = (root.appendingPathComponent(name), folder.url.appendingPathComponent("moved"))
            try FileManager.default.moveItem(at: place, to: moved)
            try FileManager.default.createSymbolicLink(at: place, withDestinationURL: moved)
            XCTAssertTrue(sentence(.bundle) { _ = try ClueBundle.open(root) }.contains("link"), name)
        }
    }

    func testANewerBundleSaysSo() throws {
        let folder = try edited([(#""schema_version": 1"#, #""schema_version": 3"#)])
        let told = sentence(.bundle) { _ = try ClueBundle.open(toy(folder)) }
        XCTAssertTrue(told.contains("newer") && told.contains("3"), told)
    }

    /// What is changed, and a word of the sentence that says so.
    private static let wrong: [(String, String, String)] = [
        (#""name": "toy","#, #""name": "toy", "name": "toy","#, "twice"),
        (#""name": "toy","#, #""name": "toy", "colour": 1,"#, "'colour' is not expected"),
        (#""target": "pi5", "#, "", "'target' is missing"),
        (#""name": "toy","#, #""name": "t\u001boy","#, "control characters"),
        (#""batch": 4, "tuned_batch": 4"#, #""batch": 4.0, "tuned_batch": 4"#, "not of type 'integer'"),
        (#""classes": ["cat", "dog", "10"]"#, #""classes": ["cat", "cat", "10"]"#, "twice"),
        (#""layout": "NCHW""#, #""layout": "NHWC""#, "is not"),
        (#""lr": 0.02"#, #""lr": 1e999"#, "out of range"),
        (#""parameters": 51"#, #""parameters": 9007199254740992"#, "2^53"),
        (#""file": "README.md""#, #""file": "../README.md""#, "does not match"),
        (#""file": "README.md""#, #""file": "a/./README.md""#, "no plain path"),
        (#""file": "README.md""#, #""file": "weights.safetensors""#, "twice"),
        (#""file": "README.md""#, #""file": "READ.md""#, "missing"),
        (#""value": "params", "offset": 48"#, #""value": "params", "offset": 49"#, "ends behind"),
        (#""init": {"weights": "frozen"}"#, #""init": {"weights": "params"}"#, "two state values"),
        (#""init": {"weights": "frozen"}"#, #""init": {"zeros": true}"#, "does not start from the weights"),
        (#""init": {"value": "params"}"#, #""init": {"value": "teach"}"#, "no earlier value"),
        (#""init": {"random": "kick"}"#, #""init": {"random": "noise"}"#, "no random stream of its shape"),
        (#""stream": 17"#, #""stream": 4294967296"#, "beyond 2^32 - 1"),
        (#""low": 0.1, "high": 0.3"#, #""low": 0.5, "high": 0.3"#, "low above high"),
        (#""shape": [3], "classes": 3"#, #""shape": [3], "classes": 4"#, "must be its classes"),
        (#""shape": [51], "init": {"zeros": true}"#, #""shape": [3000000000], "init": {"zeros": true}"#, "more than"),
        (#""binds": "onehot""#, #""binds": "two""#, "there is no batch 'two'"),
        (#""binds": "decay""#, #""binds": "decoy""#, "there is no scalar"),
        (#""length": 51, "distribution": "bernoulli""#, #""length": 50, "distribution": "bernoulli""#, "golden input"),
        (#"{"run": "shrink"}"#, #"{"run": "shrunk"}"#, "no program"),
        (#"{"run": "note"}"#, #"{"run": "step", "bind": {"x": "onehot"}}"#, "does not fit"),
        (#"{"reset": ["kick"]}"#, #"{"reset": ["kicks"]}"#, "no value"),
        (#""phase": "finish""#, #""phase": "verify""#, "runtime's own records"),
        (#""count": "inner""#, #""count": "outer""#, "scalar 'outer'"),
        (#""size": 8, "augment""#, #""size": 6, "augment""#, "do not fit"),
        (#""loop": "epochs", "count""#, #""loop": "repeat", "count""#, "outside of any epochs loop"),
        (#""program": "predict", "every""#, #""program": "note", "every""#, "must take state and x"),
        (#"{"run": "note"}"#, #"{"run": "note", "instead": [{"run": "note", "zeros": {"params": 1}}]}"#, "version 1"),
        (#"{"run": "note"}"#, #"{"run": "note", "instead": [{"run": "step", "zeros": {"params": 1}}]}"#, "other ports"),
        (#"{"run": "note"}"#, #"{"run": "note", "instead": [{"run": "note", "zeros": {"params": 52}}]}"#, "not so many"),
    ]

    func testManifestsThatContradictThemselvesAreRefused() throws {
        for (old, new, word) in Self.wrong {
            let folder = try edited([(old, new)])
            let told = sentence(.bundle) { _ = try ClueBundle.open(toy(folder)) }
            XCTAssertTrue(told.contains(word), "\(new): \(told)")
        }
    }

    func testASignatureIsLookedAtBeforeAnythingIsParsed() throws {
        let folder = try TemporaryFolder()
        let root = try folder.toyBundle()
        let signer = try XCTUnwrap(Ed25519Signer(privateKey: [UInt8](repeating: 7, count: 32)))
        let trusted = try TrustedKeys(hex: [String(repeating: "00", count: 32), signer.publicKey])
        XCTAssertTrue(sentence(.bundle) { _ = try ClueBundle.open(root, trusted: trusted) }.contains("not signed"))
        let manifest = root.appendingPathComponent("manifest.json")
        let content = Array(try Data(contentsOf: manifest))
        let signature = try signer.sign(content)
        let bytes = stride(from: 0, to: 128, by: 2).map { place -> UInt8 in
            let start = signature.index(signature.startIndex, offsetBy: place)
            return UInt8(signature[start..<signature.index(start, offsetBy: 2)], radix: 16) ?? 0
        }
        let place = root.appendingPathComponent("manifest.sig")
        try Data(bytes).write(to: place)
        XCTAssertNoThrow(try ClueBundle.open(root, trusted: trusted))
        let others = try TrustedKeys([[UInt8](repeating: 1, count: 32)])
        XCTAssertTrue(
            sentence(.bundle) { _ = try ClueBundle.open(root, trusted: others) }.contains("trusted key"))
        // No JSON any more, but what is told is the signature.
        try Data("{".utf8).write(to: manifest)
        XCTAssertTrue(
            sentence(.bundle) { _ = try ClueBundle.open(root, trusted: trusted) }.contains("trusted key"))
        XCTAssertThrowsError(try TrustedKeys([]))
        XCTAssertThrowsError(try TrustedKeys(hex: ["zz"]))
    }
}
