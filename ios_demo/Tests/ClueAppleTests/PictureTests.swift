import ClueCore
import XCTest

@testable import ClueApple

/// The parts of decoding that have no platform in them (contract/resize.md, "Decode").
final class PictureTests: XCTestCase {
    private func grey(_ bytes: [UInt8], width: Int, height: Int = 1, bits: Int = 8, perRow: Int? = nil) -> RawPicture {
        RawPicture(
            width: width, height: height, colours: 1, bits: bits, bytesPerRow: perRow ?? bytes.count / height, bytes: bytes)
    }

    func testFewBitsAreSpreadAndRowsMayBePadded() throws {
        XCTAssertEqual(try grey([0b1010_0000], width: 3, bits: 1).upright(grey: true).pixels, [255, 0, 255])
        XCTAssertEqual(try grey([0b0001_1011], width: 4, bits: 2).upright(grey: true).pixels, [0, 85, 170, 255])
        XCTAssertEqual(try grey([0x0F, 0x80, 9, 9], width: 1, height: 2, bits: 4, perRow: 2).upright(grey: true).pixels, [0, 0])
        XCTAssertEqual(try grey([1, 2, 9, 3, 4, 9], width: 2, height: 2, perRow: 3).upright(grey: true).pixels, [1, 2, 3, 4])
    }

    func testOfSixteenBitsTheUpperByteCounts() throws {
        var picture = grey([0x12, 0xFF, 0xAB, 0x00], width: 2, bits: 16)
        XCTAssertEqual(try picture.upright(grey: true).pixels, [0x12, 0xAB])
        picture.lowerByteFirst = true
        XCTAssertEqual(try picture.upright(grey: true).pixels, [0xFF, 0x00])
    }

    func testOrdersOfSamplesAndTransparencyOnBlack() throws {
        var picture = RawPicture(
            width: 1, height: 1, colours: 3, alpha: .straight, bytesPerRow: 4, bytes: [200, 100, 51, 128])
        // (2 * v * a + 255) div 510
        let black: [UInt8] = [100, 50, 26]
        XCTAssertEqual(try picture.upright(grey: false).pixels, black)
        (picture.alphaFirst, picture.bytes) = (true, [128, 200, 100, 51])
        XCTAssertEqual(try picture.upright(grey: false).pixels, black)
        (picture.reversed, picture.bytes) = (true, [51, 100, 200, 128])
        XCTAssertEqual(try picture.upright(grey: false).pixels, black)
        picture.alpha = .premultiplied
        XCTAssertEqual(try picture.upright(grey: false).pixels, [200, 100, 51])
        picture.alpha = .skipped
        XCTAssertEqual(try picture.upright(grey: false).pixels, [200, 100, 51])
        let dim = RawPicture(width: 1, height: 1, colours: 1, alpha: .straight, bytesPerRow: 2, bytes: [200, 128])
        XCTAssertEqual(try dim.upright(grey: true).pixels, [100])
        XCTAssertEqual(try dim.upright(grey: false).pixels, [100, 100, 100])
    }

    func testPalettesAndGrey() throws {
        var picture = grey([0b0110_0000], width: 3, bits: 1)
        picture.palette = [10, 20, 30, 255, 0, 1]
        XCTAssertEqual(try picture.upright(grey: false).pixels, [10, 20, 30, 255, 0, 1, 255, 0, 1])
        let red = UInt8((19595 * 255 + 7471 + 32768) >> 16)
        XCTAssertEqual(try picture.upright(grey: true).pixels, [18, red, red])
        picture.palette = [1, 2, 3]
        XCTAssertThrowsError(try picture.upright(grey: true))
    }

    func testOrientations() throws {
        // 1 2 3
        // 4 5 6
        let upright: [Int: [UInt8]] = [
            1: [1, 2, 3, 4, 5, 6], 2: [3, 2, 1, 6, 5, 4], 3: [6, 5, 4, 3, 2, 1], 4: [4, 5, 6, 1, 2, 3],
            5: [1, 4, 2, 5, 3, 6], 6: [4, 1, 5, 2, 6, 3], 7: [6, 3, 5, 2, 4, 1], 8: [3, 6, 2, 5, 1, 4], 9: [1, 2, 3, 4, 5, 6],
        ]
        for (orientation, pixels) in upright {
            var picture = grey([1, 2, 3, 4, 5, 6], width: 3, height: 2)
            picture.orientation = orientation
            let images = try picture.upright(grey: true)
            XCTAssertEqual(images.pixels, pixels, "orientation \(orientation)")
            XCTAssertEqual([images.height, images.width], (5...8).contains(orientation) ? [3, 2] : [2, 3])
        }
    }

    func testBytesThatAreMissingAreSeen() {
        XCTAssertThrowsError(try grey([1, 2, 3], width: 2, height: 2, perRow: 2).upright(grey: true))
        XCTAssertThrowsError(try grey([1], width: 1, bits: 32).upright(grey: true))
        XCTAssertThrowsError(
            try RawPicture(width: 1, height: 1, colours: 3, bits: 4, bytesPerRow: 2, bytes: [1, 2]).upright(grey: true))
    }
}

/// What is refused before anything is decoded. The files are real: made by Pillow (tests/ios_demo/pictures.py), smallest ones of their kinds.
final class PictureFileTests: XCTestCase {
    private static func bytes(_ name: String) throws -> [UInt8] {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Pictures")
        return [UInt8](try Data(contentsOf: folder.appendingPathComponent(name)))
    }

    private func message(_ bytes: [UInt8]) -> String {
        do { return "read: \(try PictureFile(bytes))" } catch { return "\(error)" }
    }

    func testSizesAreRead() throws {
        for (name, format) in [("rgb.png", PictureFile.Format.png), ("rgb.jpg", .jpeg), ("progressive.jpg", .jpeg), ("grey.jpg", .jpeg)] {
            let file = try PictureFile(try Self.bytes(name))
            XCTAssertEqual([file.width, file.height], [13, 7], name)
            XCTAssertEqual(file.format, format, name)
        }
    }

    func testEveryShorterFileIsRefused() throws {
        for name in ["rgb.png", "rgb.jpg", "progressive.jpg"] {
            let whole = try Self.bytes(name)
            for count in 0..<whole.count { XCTAssertThrowsError(try PictureFile(Array(whole[..<count])), "\(name) of \(count) bytes") }
        }
    }

    func testWhatIsNoPictureOrTooLargeIsRefused() throws {
        XCTAssertTrue(message([]).contains("empty"))
        XCTAssertTrue(message(Array("GIF89a".utf8)).contains("JPEG or a PNG"))
        XCTAssertTrue(message(try Self.bytes("cmyk.jpg")).contains("CMYK"))
        var huge = try Self.bytes("rgb.png")
        huge.replaceSubrange(16..<24, with: [0, 1, 0, 0, 0, 0, 0, 1])  // 65,536 x 1
        XCTAssertTrue(message(huge).contains("65535"))
        huge.replaceSubrange(16..<24, with: [0, 0, 0x80, 0, 0, 0, 0x80, 0])  // 2^30 pixels
        XCTAssertTrue(message(huge).contains("pixels"))
        huge.replaceSubrange(16..<24, with: [0, 0, 0, 0, 0, 0, 0, 1])
        XCTAssertTrue(message(huge).contains("no pixels"))
    }
}
