import Foundation
import XCTest

@testable import ClueCore

/// The store side against the known answers of contract/.
final class KnownAnswerTests: XCTestCase {
    func testShippedFilesAreTheContracts() throws {
        for name in ["manifest.schema.json", "receipt.schema.json", "schema.sql"] {
            let contract = Places.contract.appendingPathComponent(name)
            XCTAssertEqual(try Shipped.bytes(name), try RegularFile.small(contract, most: 1 << 20), name)
        }
    }

    func testNumbersAreThoseOfRFC8785() throws {
        for each in try Places.json("receipts/canonical.json")["numbers"]?.array ?? [] {
            let bits = try XCTUnwrap(each["bits"]?.string.flatMap { UInt64($0, radix: 16) })
            let number = JSON.double(Double(bitPattern: bits))
            if let text = each["text"]?.string {
                XCTAssertEqual(try CanonicalJSON.text(number), text)
            } else {
                XCTAssertThrowsError(try CanonicalJSON.text(number))
            }
        }
    }

    func testDocumentsAreThoseOfRFC8785() throws {
        for each in try Places.json("receipts/canonical.json")["documents"]?.array ?? [] {
            let text = try XCTUnwrap(each["json"]?.string)
            let found = try CanonicalJSON.text(try StrictJSON.parse(Array(text.utf8), maxBytes: 1 << 20))
            if let bytes = each["utf8"]?.string { XCTAssertEqual(Array(found.utf8).hex, bytes) }
            if let order = each["order"]?.array?.compactMap(\.string) {
                let places = try order.map { try XCTUnwrap(found.range(of: "\"\($0)\"")).lowerBound }
                XCTAssertEqual(places, places.sorted())
                XCTAssertEqual(places.count, 7)
            }
        }
    }

    func testOtherFormsOfTheSameJSONAreRefused() throws {
        for text in [#"{"b":1,"a":2}"#, #"{"a": 1}"#, #"{"a":1.0}"#, #"{"a":"\u0041"}"#, #"{"a":1}"# + "\n"] {
            XCTAssertThrowsError(try CanonicalJSON.parse(Array(text.utf8)), text)
        }
        XCTAssertEqual(try CanonicalJSON.parse(Array(#"{"a":1}"#.utf8)), .object(["a": .int(1)]))
    }

    // MARK: receipts

    private func golden() throws -> (texts: [String], signer: Ed25519Signer, key: String) {
        let file = try Places.json("receipts/golden.json")
        let privateKey = try XCTUnwrap(file["private_key"]?.string.flatMap(Signature.bytes))
        let texts = try XCTUnwrap(file["receipts"]?.array?.compactMap { $0["text"]?.string })
        XCTAssertEqual(texts.count, 5)
        return (texts, try XCTUnwrap(Ed25519Signer(privateKey: privateKey)), file["public_key"]?.string ?? "")
    }

    func testReceiptsOfTheContractHold() throws {
        let golden = try golden()
        XCTAssertEqual(golden.signer.publicKey, golden.key)
        let receipts = try golden.texts.map(Receipt.init(text:))
        for receipt in receipts { XCTAssertNil(receipt.problem, receipt.kind) }
        XCTAssertNil(Receipt.problem(inChain: receipts, key: golden.key))
        XCTAssertNotNil(Receipt.problem(inChain: Array(receipts.dropFirst()), key: golden.key))
        XCTAssertNotNil(Receipt.problem(inChain: [receipts[0]] + receipts.dropFirst(2), key: golden.key))
        XCTAssertNotNil(Receipt.problem(inChain: receipts, key: String(repeating: "0", count: 64)))
    }

    func testReceiptsAreWrittenAndSignedByteForByte() throws {
        let golden = try golden()
        for text in golden.texts {
            var content = try Receipt(text: text).content
            let signature = content.removeValue(forKey: "signature")
            let unsigned = try CanonicalJSON.text(.object(content))
            XCTAssertEqual(signature, .string(try golden.signer.sign(Array(unsigned.utf8))))
            content["signature"] = signature
            XCTAssertEqual(try CanonicalJSON.text(.object(content)), text)
        }
    }

    func testAnyChangeOfAReceiptIsSeen() throws {
        let text = try XCTUnwrap(try golden().texts.first)
        let changed = text.replacingOccurrences(of: "\"wall_s\":41.25", with: "\"wall_s\":41.26")
        XCTAssertNotEqual(changed, text)
        XCTAssertTrue(try Receipt(text: changed).problem?.contains("changed after it was signed") == true)
        XCTAssertThrowsError(try Receipt(text: text + " "))
    }

    func testAReceiptThatLacksAPartIsNone() throws {
        let golden = try golden()
        var content = try Receipt(text: golden.texts[0]).content
        content["statement"] = nil
        content["signature"] = nil
        let unsigned = try CanonicalJSON.text(.object(content))
        content["signature"] = .string(try golden.signer.sign(Array(unsigned.utf8)))
        let receipt = try Receipt(text: try CanonicalJSON.text(.object(content)))
        XCTAssertTrue(receipt.problem?.contains("no receipt") == true)
    }

    func testAVerdictSaysWhatIsProvenAndWhatIsNot() throws {
        let golden = try golden()
        let receipts = try golden.texts.map(Receipt.init(text:))
        let verdict = receipts[0].verdict()
        XCTAssertNil(verdict.problem)
        XCTAssertTrue(verdict.notProven.contains(Receipt.statement))
        XCTAssertTrue(verdict.notProven.contains { $0.contains("Who owns the key") })
        XCTAssertTrue(verdict.stated.contains { $0.contains("went from 96.9 % to 33.3 %") })
        let after = try XCTUnwrap(receipts[0].content["weights"]?["after"]?.string)
        let full = receipts[0].verdict(key: golden.key, chain: receipts, weights: after)
        XCTAssertNil(full.problem)
        XCTAssertEqual(full.proven.count, 4)
        XCTAssertTrue(full.notProven.contains { $0.contains("a chain does not show its end") })
        XCTAssertNotNil(receipts[0].verdict(key: String(repeating: "1", count: 64)).problem)
        XCTAssertNotNil(receipts[0].verdict(weights: String(repeating: "1", count: 64)).problem)
        XCTAssertNotNil(receipts[1].verdict(chain: [receipts[0]]).problem)
        for receipt in receipts { XCTAssertFalse(receipt.verdict().stated.isEmpty) }
    }

    /// The example of RFC 7515, A.3: content, point and signature of ES256.
    func testES256() throws {
        let content = Array(
            ("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
                + "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ").utf8)
        func decoded(_ text: String) throws -> [UInt8] {
            let padded = text.replacingOccurrences(of: "-", with: "+").replacingOccurrences(of: "_", with: "/")
            let full = padded + String(repeating: "=", count: (4 - padded.count % 4) % 4)
            return Array(try XCTUnwrap(Data(base64Encoded: full)))
        }
        let point =
            [4] + (try decoded("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"))
            + (try decoded("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"))
        let signature = try decoded(
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
        XCTAssertTrue(Signature.isValid(signature.hex, of: content, algorithm: "ES256", key: point.hex))
        XCTAssertFalse(Signature.isValid(signature.hex, of: content + [0], algorithm: "ES256", key: point.hex))
        XCTAssertFalse(Signature.isValid(signature.hex, of: content, algorithm: "Ed25519", key: point.hex))
    }

    // MARK: images

    func testResizeWeights() throws {
        let cases = try Places.json("resize/golden.json")["weights"]?.array ?? []
        XCTAssertEqual(cases.count, 3)
        for each in cases {
            let n = try XCTUnwrap(each["n"]?.int)
            let found = try Resize.taps(from: n, to: try XCTUnwrap(each["m"]?.int)).map { taps in
                let before = [Int](repeating: 0, count: taps.first)
                let after = [Int](repeating: 0, count: n - taps.first - taps.weights.count)
                return before + taps.weights + after
            }
            XCTAssertEqual(found, each["weights"]?.array?.map { $0.array?.compactMap(\.int) ?? [] })
        }
    }

    func testResizedImages() throws {
        let cases = try Places.json("resize/golden.json")["images"]?.array ?? []
        XCTAssertEqual(cases.count, 16)
        for each in cases {
            func number(_ name: String) throws -> Int { try XCTUnwrap(each[name]?.int) }
            func bytes(_ name: String) throws -> [UInt8]? {
                try each[name]?.string.map { Array(try XCTUnwrap(Data(base64Encoded: $0))) }
            }
            let (height, width, channels) = (try number("height"), try number("width"), try number("channels"))
            let pixels = try bytes("input") ?? Self.formula(height, width, channels)
            XCTAssertEqual(Sha256.hex(pixels), each["input_sha256"]?.string)
            let image = Images(count: 1, height: height, width: width, channels: channels, pixels: pixels)
            let found = try Resize.fit(
                image, height: try number("to_height"), width: try number("to_width"),
                rule: each["fit"]?.string ?? "")
            XCTAssertEqual(found.pixels, try bytes("output"), each["name"]?.string ?? "")
        }
    }

    private static func formula(_ height: Int, _ width: Int, _ channels: Int) -> [UInt8] {
        var pixels: [UInt8] = []
        for y in 0..<height {
            for x in 0..<width {
                for c in 0..<channels {
                    let value = 31 * y + 17 * x * x + 101 * c + x * y
                    pixels.append(UInt8(value % 256))
                }
            }
        }
        return pixels
    }

    func testSidesThatCannotBeResizedAreRefused() {
        XCTAssertThrowsError(try Resize.taps(from: 0, to: 3))
        XCTAssertThrowsError(try Resize.taps(from: 65_536, to: 3))
        XCTAssertNoThrow(try Resize.taps(from: 65_535, to: 3))
    }

    func testOrientations() {
        // 1 2 3 / 4 5 6, and how each orientation shows it upright.
        let image = PixelRules.Raster(height: 2, width: 3, channels: 1, pixels: [1, 2, 3, 4, 5, 6])
        let upright: [Int: [UInt8]] = [
            1: [1, 2, 3, 4, 5, 6], 2: [3, 2, 1, 6, 5, 4], 3: [6, 5, 4, 3, 2, 1], 4: [4, 5, 6, 1, 2, 3],
            5: [1, 4, 2, 5, 3, 6], 6: [4, 1, 5, 2, 6, 3], 7: [6, 3, 5, 2, 4, 1], 8: [3, 6, 2, 5, 1, 4],
            0: [1, 2, 3, 4, 5, 6], 9: [1, 2, 3, 4, 5, 6],
        ]
        for (orientation, pixels) in upright {
            let found = PixelRules.upright(image, orientation: orientation)
            XCTAssertEqual(found.pixels, pixels, "orientation \(orientation)")
            XCTAssertEqual(found.height, (5...8).contains(orientation) ? 3 : 2)
        }
    }

    func testTransparencyAndGrey() {
        let clear = PixelRules.Raster(
            height: 1, width: 3, channels: 4, pixels: [255, 100, 1, 255, 255, 100, 1, 128, 9, 9, 9, 0])
        let black = PixelRules.onBlack(clear)
        XCTAssertEqual(black.pixels, [255, 100, 1, 128, 50, 1, 0, 0, 0])
        XCTAssertEqual(PixelRules.image(black, grey: true).pixels, [135, 68, 0])
        let grey = PixelRules.Raster(height: 1, width: 1, channels: 1, pixels: [7])
        XCTAssertEqual(PixelRules.image(grey, grey: false).pixels, [7, 7, 7])
    }
}
