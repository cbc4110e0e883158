import XCTest

@testable import ClueCore

/// The known answers of contract/verify_kat.json, and what logits say of a collapse.
final class VerifyTests: XCTestCase {
    func testProbes() throws {
        for given in try Contract.json("verify_kat.json").list("probes") {
            let (n, h, w, c) = (
                try given.whole("n"), try given.whole("height"), try given.whole("width"), try given.whole("channels")
            )
            var pixels: [UInt8] = []
            for i in 0..<n {
                for y in 0..<h {
                    for x in 0..<w {
                        for k in 0..<c {
                            let value = 37 * i + 11 * y + 5 * x + 101 * k + i * y * x
                            pixels.append(UInt8(value % 256))
                        }
                    }
                }
            }
            let images = Images(count: n, height: h, width: w, channels: c, pixels: pixels)
            let made = Probes.make(images, seed: UInt64(try given.whole("seed")), count: try given.whole("count"))
            XCTAssertEqual(made.count, try given.whole("count"))
            let first = try given.wholes("first")
            XCTAssertEqual(made.pixels.prefix(first.count).map(Int.init), first)
            XCTAssertEqual(Sha256.hex(made.pixels), try given.text("sha256"))
        }
    }

    func testHoldout() throws {
        for given in try Contract.json("verify_kat.json").list("holdout") {
            let n = try given.whole("n")
            let images = Images(count: n, height: 1, width: 1, channels: 1, pixels: [UInt8](repeating: 0, count: n))
            // Labels that tell where a sample stood.
            let (plan, held) = Holdout.split(
                Labelled(images: images, labels: Array(0..<n)), share: try given.number("holdout"),
                seed: UInt64(try given.whole("seed")))
            let expected = try given.wholes("held_out")
            XCTAssertEqual(held.labels, expected)
            XCTAssertEqual(plan.labels, (0..<n).filter { !expected.contains($0) })
        }
    }

    func testHoldoutIsRefusedWhereItMakesNoSense() {
        XCTAssertTrue(sentence(.invalid) { try Holdout.check(0.6, kind: "class") }.contains("0.6"))
        XCTAssertTrue(sentence(.invalid) { try Holdout.check(0.1, kind: "samples") }.contains("chosen samples"))
        XCTAssertNoThrow(try Holdout.check(0.5, kind: "class"))
        XCTAssertNoThrow(try Holdout.check(0, kind: "samples"))
    }

    func testComparisonLeavesForgottenClassesAside() {
        let before: [[Float]] = [[9, 2, 1], [0, 3, 1], [0, 1, 3], [1, 1, 0]]
        let after: [[Float]] = [[0, 2, 1], [9, 3, 1], [0, 3, 1], [0, 1, 0]]
        let found = Probes.compare(before, after, forgotten: [0])
        XCTAssertEqual(found.kept, 75)
        XCTAssertEqual(found.largestShareBefore, 50)  // two for the first class: of equal logits the first
        XCTAssertEqual(found.largestShareAfter, 75)
    }
}
