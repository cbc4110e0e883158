import ClueCore

/// What the bytes of a picture say before anything is decoded (contract/resize.md, "Decode"): a decoder may fill up a file that
/// ends too early with grey, and would first take the memory for a picture that is too large.
struct PictureFile: Equatable {
    enum Format: String {
        case jpeg = "JPEG"
        case png = "PNG"
    }

    static let mostBytes = 256 << 20
    static let mostPixels = 1 << 26
    static let longestSide = 65_535

    let format: Format
    let width: Int
    let height: Int

    /// - Throws: ``ClueError`` saying what is wrong: no JPEG or PNG, too large, of another kind of samples, or cut off.
    init(_ bytes: [UInt8]) throws {
        guard !bytes.isEmpty else { throw Self.refused("it is empty (0 bytes)") }
        guard bytes.count <= Self.mostBytes else {
            throw Self.refused("it has \(bytes.count) bytes: pictures have up to \(Self.mostBytes)")
        }
        if bytes.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) {
            (format, (width, height)) = (.png, try Self.png(bytes))
        } else if bytes.starts(with: [0xFF, 0xD8, 0xFF]) {
            (format, (width, height)) = (.jpeg, try Self.jpeg(bytes))
        } else {
            throw Self.refused("it must be a JPEG or a PNG file")
        }
        guard width > 0, height > 0 else { throw Self.refused("it has no pixels") }
        guard max(width, height) <= Self.longestSide, width * height <= Self.mostPixels else {
            throw Self.refused(
                "it has \(width) x \(height) pixels: up to \(Self.mostPixels) and \(Self.longestSide) a side are allowed")
        }
    }

    static func refused(_ why: String) -> ClueError { ClueError(.invalid, "the picture cannot be read: \(why)") }

    private static var cutOff: ClueError { refused("the file ends too early") }

    /// Width and height of a PNG whose chunks are all there.
    private static func png(_ bytes: [UInt8]) throws -> (Int, Int) {
        var at = 8
        var size: (Int, Int)?
        while true {
            guard at + 12 <= bytes.count else { throw cutOff }
            let length = number(bytes, at, 4)
            let kind = bytes[at + 4..<at + 8]
            guard length <= bytes.count - at - 12 else { throw cutOff }
            if size == nil {
                guard kind.elementsEqual("IHDR".utf8), length == 13 else { throw refused("its header is damaged") }
                size = (number(bytes, at + 8, 4), number(bytes, at + 12, 4))
            }
            if let size, kind.elementsEqual("IEND".utf8) { return size }
            at += 12 + length
        }
    }

    /// Width and height of a JPEG that goes on to its end mark.
    private static func jpeg(_ bytes: [UInt8]) throws -> (Int, Int) {
        var at = 2
        var size: (Int, Int)?
        while true {
            // entropy-coded data lies between segments: 0xFF is a byte of it when 0 follows, and a mark to start anew is part of it
            while at + 1 < bytes.count, bytes[at] != 0xFF || bytes[at + 1] == 0 || (0xD0...0xD7).contains(bytes[at + 1]) { at += 1 }
            guard at + 1 < bytes.count else { throw cutOff }
            let mark = bytes[at + 1]
            switch mark {
            case 0xFF: at += 1
            case 0x01: at += 2
            case 0xD9:
                guard let size else { throw refused("it has no picture in it") }
                return size
            default:
                guard at + 4 <= bytes.count else { throw cutOff }
                let length = number(bytes, at + 2, 2)
                guard length >= 2, at + 2 + length <= bytes.count else { throw cutOff }
                // start of frame: 0xC4, 0xC8 and 0xCC are tables and marks of the same row
                if (0xC0...0xCF).contains(mark), ![0xC4, 0xC8, 0xCC].contains(mark) {
                    guard length >= 8 else { throw refused("its header is damaged") }
                    guard bytes[at + 4] == 8 else {
                        throw refused("its samples have \(bytes[at + 4]) bits: convert it to RGB or grey of 8 bits first")
                    }
                    guard [1, 3].contains(bytes[at + 9]) else {
                        throw refused("it has \(bytes[at + 9]) colours (CMYK?): convert it to RGB or grey first")
                    }
                    size = (number(bytes, at + 7, 2), number(bytes, at + 5, 2))
                }
                at += 2 + length
            }
        }
    }

    private static func number(_ bytes: [UInt8], _ at: Int, _ count: Int) -> Int {
        bytes[at..<at + count].reduce(0) { $0 << 8 | Int($1) }
    }
}
