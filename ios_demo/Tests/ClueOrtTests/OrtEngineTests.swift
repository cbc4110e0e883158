import ClueOrt
import XCTest

@testable import ClueCore

final class OrtEngineTests: XCTestCase {
    private func sentence(_ body: () throws -> Void) -> String {
        do {
            try body()
            XCTFail("nothing was thrown")
        } catch { return (error as? ClueError)?.message ?? "another error: \(error)" }
        return ""
    }

    func testWhatItSaysOfItself() throws {
        let engine = try OrtEngine()
        XCTAssertEqual(engine.name, "onnx")
        XCTAssertGreaterThan(engine.threads, 0)
        XCTAssertTrue(engine.version.hasPrefix("1."), engine.version)
        XCTAssertTrue(sentence { _ = try OrtEngine(threads: 0) }.contains("from 1 to 256"))
        XCTAssertTrue(sentence { _ = try OrtEngine(threads: 300) }.contains("from 1 to 256"))
    }

    func testFilesThatAreNoProgramOrAnotherOne() throws {
        let bundle = try ClueBundle.open(Fixture.toy)
        let engine = try OrtEngine(threads: 1)
        let folder = try TemporaryFolder()
        let broken = folder.url.appendingPathComponent("broken.onnx")
        try Data([1, 2, 3]).write(to: broken)
        let predict = try bundle.program("predict")
        XCTAssertTrue(sentence { _ = try engine.load(broken, program: predict) }.contains("cannot load"))
        let missing = folder.url.appendingPathComponent("missing.onnx")
        XCTAssertTrue(sentence { _ = try engine.load(missing, program: predict) }.contains("missing.onnx"))
        let other = try bundle.file("programs/onnx/predict_1.onnx")
        let told = sentence { _ = try engine.load(other, program: predict) }
        XCTAssertTrue(told.contains("x") && told.contains("[1, 1, 4, 4]") && told.contains("[4, 1, 4, 4]"), told)
    }

    func testArraysOfAnotherShapeNeverReachTheLibrary() throws {
        let bundle = try ClueBundle.open(Fixture.toy)
        let session = try bundle.load("predict", by: OrtEngine(threads: 1))
        let program = try bundle.program("predict")
        let inputs = program.inputs.map { FloatArray(shape: $0.shape) }
        XCTAssertTrue(
            sentence { try session.run(inputs: inputs, outputs: [FloatArray(shape: [4, 2])]) }
                .contains("expected an array [4, 3], got [4, 2]"))
        XCTAssertNoThrow(try session.run(inputs: inputs, outputs: [FloatArray(shape: [4, 3])]))
    }

    func testABundleWithoutProgramsForTheEngine() throws {
        let bundle = try ClueBundle.open(Fixture.toy)
        struct Other: Engine {
            let name = "other"
            let version = "1"
            let backend = "cpu"
            let threads = 1
            func load(_ file: URL, program: Program) throws -> any Session { throw ClueError(.engine, "never") }
        }
        XCTAssertTrue(sentence { _ = try GoldenCheck.check(bundle, engine: Other()) }.contains("it has onnx"))
    }

    func testManyArraysDoNotPileUp() throws {
        let bundle = try ClueBundle.open(Fixture.toy)
        let session = try bundle.load("predict", by: OrtEngine(threads: 1))
        let program = try bundle.program("predict")
        var last: [Float] = []
        for turn in 0..<400 {
            let inputs = program.inputs.map { FloatArray(shape: $0.shape) }
            inputs[0].fill(Float(turn))
            inputs[1].fill(1)
            inputs[2].fill(0.5)
            let out = FloatArray(shape: [4, 3])
            try session.run(inputs: inputs, outputs: [out])
            XCTAssertNotEqual(Array(out), last)
            last = Array(out)
        }
    }

    func testOneWeightsFileAfterAnother() throws {
        let bundle = try ClueBundle.open(Fixture.toy)
        let server = WeightsServer(bundle: bundle, engine: try OrtEngine(threads: 1))
        let images = try Fixture.toyImages(of: "cat", 0..<9)
        let first = try bundle.file("weights.safetensors")
        let second = Fixture.contract.appendingPathComponent("scenarios/bundles/toy-2/weights.safetensors")
        let sha256 = try RegularFile.sha256(second)
        let one = try server.logits(images, weights: first, sha256: bundle.weights.sha256)
        let two = try server.logits(images, weights: second, sha256: sha256)
        XCTAssertEqual(one.count, 9)
        XCTAssertNotEqual(one, two)
        XCTAssertTrue(
            sentence { _ = try server.logits(images, weights: first, sha256: String(repeating: "0", count: 64)) }
                .contains("were changed"))
        XCTAssertEqual(try server.logits(images, weights: first, sha256: bundle.weights.sha256), one)
        // The ninth image goes through predict_1: the same figures but for rounding.
        let alone = try server.logits(images.at([8]), weights: first, sha256: bundle.weights.sha256)
        XCTAssertEqual(alone, [one[8]])
        XCTAssertEqual(try server.logits(images.at([]), weights: first, sha256: bundle.weights.sha256), [])
        let wide = Images(count: 1, height: 4, width: 5, channels: 1, pixels: [UInt8](repeating: 0, count: 20))
        XCTAssertTrue(
            sentence { _ = try server.logits(wide, weights: first, sha256: bundle.weights.sha256) }
                .contains("[1, 4, 4]"))
    }
}
