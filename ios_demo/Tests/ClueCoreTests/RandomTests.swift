import XCTest

@testable import ClueCore

/// The known answers of contract/rng_kat.json, all of them.
final class RandomTests: XCTestCase {
    private func cases(_ name: String) throws -> [JSON] {
        let cases = try Contract.json("rng_kat.json").list(name)
        XCTAssertFalse(cases.isEmpty)
        return cases
    }

    private func source(_ given: JSON) throws -> Philox {
        try Philox(seed: given.hex64("seed"), stream: UInt32(given.whole("stream")), epoch: given.whole("epoch"))
    }

    /// A draw of each position, by `draw` into memory for `count` elements a position.
    private func drawn(_ given: JSON, _ draw: (Philox, [Int], Int, Int, UnsafeMutablePointer<Float>) -> Void) throws
        -> [Float]
    {
        let positions = try given.wholes("positions")
        let count = try given.wholes("shape").reduce(1, *)
        let out = FloatArray(shape: [positions.count, count])
        draw(try source(given), positions, count, try given.whole("block_offset"), out.pointer)
        return Array(out)
    }

    func testEveryMemberIsLookedAt() throws {
        let known: Set = [
            "version", "philox", "words", "uniform", "integers", "neg_log", "cos_sin", "normal", "normal_sha256",
            "permutation", "augmentation", "crop_flip",
        ]
        XCTAssertEqual(Set(try XCTUnwrap(Contract.json("rng_kat.json").object).keys), known)
    }

    func testPhilox() throws {
        for given in try cases("philox") {
            let (counter, key) = (try given.hex32("counter"), try given.hex32("key"))
            let block = Philox.block(
                counter: (counter[0], counter[1], counter[2], counter[3]), key: (key[0], key[1]))
            XCTAssertEqual((0..<4).map { block[$0] }, try given.hex32("words"))
        }
    }

    func testWords() throws {
        for given in try cases("words") {
            let found = try given.wholes("positions").flatMap {
                try source(given).words(
                    position: $0, count: given.whole("count"), offset: given.whole("block_offset"))
            }
            XCTAssertEqual(found, try given.hex32("words"))
        }
    }

    func testUniform() throws {
        for given in try cases("uniform") {
            let (low, high) = (try given.number("low"), try given.number("high"))
            let found = try drawn(given) { $0.uniform($1, count: $2, low: low, high: high, offset: $3, into: $4) }
            XCTAssertEqual(found.map(\.bitPattern), try given.hex32("bits"))
        }
    }

    func testIntegers() throws {
        for given in try cases("integers") {
            let count = try given.wholes("shape").reduce(1, *)
            let found = try given.wholes("positions").flatMap {
                try source(given).integers(
                    position: $0, count: count, n: given.whole("n"), offset: given.whole("block_offset"))
            }
            XCTAssertEqual(found, try given.wholes("values"))
        }
    }

    func testLogarithmSineAndCosine() throws {
        for given in try cases("neg_log") {
            XCTAssertEqual(BoxMuller.negLog(UInt64(try given.whole("k"))).bitPattern, try given.hex64("bits"))
        }
        for given in try cases("cos_sin") {
            let found = BoxMuller.cosSin(UInt64(try given.whole("k")))
            XCTAssertEqual(found.cos.bitPattern, try given.hex64("cos"))
            XCTAssertEqual(found.sin.bitPattern, try given.hex64("sin"))
        }
    }

    func testNormal() throws {
        for given in try cases("normal") {
            let found = try drawn(given) { $0.normal($1, count: $2, offset: $3, into: $4) }
            XCTAssertEqual(found.map(\.bitPattern), try given.hex32("bits"))
        }
        for given in try cases("normal_sha256") {
            let found = try drawn(given) { $0.normal($1, count: $2, offset: $3, into: $4) }
            XCTAssertEqual(found.withUnsafeBytes { Sha256.hex($0) }, try given.text("sha256"))
        }
    }

    func testPermutation() throws {
        for given in try cases("permutation") {
            let stream = given["stream"]?.int.map(UInt32.init) ?? Philox.Stream.order
            let order = try Philox.permutation(
                seed: given.hex64("seed"), epoch: given.whole("epoch"), n: given.whole("n"), stream: stream)
            XCTAssertEqual(order, try given.wholes("values"))
        }
    }

    func testAugmentation() throws {
        for given in try cases("augmentation") {
            let moves = try given.wholes("positions").map {
                try Philox.move(
                    seed: given.hex64("seed"), epoch: given.whole("epoch"), position: $0, pad: given.whole("pad"))
            }
            XCTAssertEqual(moves.map(\.dy), try given.wholes("dy"))
            XCTAssertEqual(moves.map(\.dx), try given.wholes("dx"))
            XCTAssertEqual(moves.map(\.flip), try given.list("flip").map { $0 == .bool(true) })
        }
        for given in try cases("crop_flip") {
            let shape = try given.wholes("shape")
            let images = Images(
                count: shape[0], height: shape[1], width: shape[2], channels: shape[3],
                pixels: try given.wholes("input").map(UInt8.init))
            let (dy, dx, flip) = (try given.wholes("dy"), try given.wholes("dx"), try given.list("flip"))
            let moves = (0..<shape[0]).map { Philox.Move(dy: dy[$0], dx: dx[$0], flip: flip[$0] == .bool(true)) }
            let found = images.cropFlip(moves, pad: try given.whole("pad"))
            XCTAssertEqual(found.pixels.map(Int.init), try given.wholes("output"))
        }
    }
}
