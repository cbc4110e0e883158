/// JSON from files that may be hostile: one meaning only, and no depth, size or number to choke on.
public struct StrictJSON {
    /// Why a text is refused, in words that continue a sentence.
    public struct Problem: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    /// The value of a JSON text in UTF-8.
    /// - Throws: `Problem`: longer than `maxBytes`, not UTF-8, not JSON, nested deeper than 64, a key twice in one
    ///   object, a whole number beyond 2^53 - 1, a number beyond a double's, half a surrogate pair.
    public static func parse(_ content: some Collection<UInt8>, maxBytes: Int) throws -> JSON {
        try read(content, maxBytes: maxBytes).value
    }

    /// As `parse`; also the keys of each member of the outermost object in the order of the text.
    static func read(
        _ content: some Collection<UInt8>, maxBytes: Int
    ) throws -> (value: JSON, order: [String: [String]]) {
        guard content.count <= maxBytes else {
            throw Problem(description: "it has \(content.count) bytes, more than \(maxBytes)")
        }
        guard String(decoding: content, as: UTF8.self).utf8.elementsEqual(content) else {
            throw Problem(description: "it is not UTF-8")  // what is not was replaced
        }
        var reader = StrictJSON(bytes: Array(content))
        let value = try reader.value(depth: 0)
        reader.skipSpaces()
        guard reader.place == reader.bytes.count else { throw reader.unexpected() }
        return (value, reader.order)
    }

    /// Whether a text has characters that a terminal would act on.
    static func hasControl(_ text: String) -> Bool {
        text.unicodeScalars.contains { $0.value < 0x20 || (0x7F...0x9F).contains($0.value) }
    }

    static let most = (1 << 53) - 1
    private static let maxDepth = 64

    private let bytes: [UInt8]
    private var place = 0
    private var order: [String: [String]] = [:]
    private var member = ""  // of the outermost object

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private func unexpected() -> Problem {
        Problem(description: place < bytes.count ? "unexpected text at byte \(place)" : "it ends too early")
    }

    private mutating func skipSpaces() {
        while place < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[place]) { place += 1 }
    }

    /// Whether the next byte is this one; it is then passed.
    private mutating func take(_ byte: Character) -> Bool {
        guard place < bytes.count, bytes[place] == byte.asciiValue else { return false }
        place += 1
        return true
    }

    private mutating func value(depth: Int) throws -> JSON {
        skipSpaces()
        guard place < bytes.count else { throw unexpected() }
        switch Character(Unicode.Scalar(bytes[place])) {
        case "{": return .object(try object(depth: depth + 1))
        case "[": return .array(try array(depth: depth + 1))
        case "\"": return .string(try string())
        case "t": return try word("true", .bool(true))
        case "f": return try word("false", .bool(false))
        case "n": return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func word(_ word: String, _ value: JSON) throws -> JSON {
        guard bytes[place...].starts(with: word.utf8) else { throw unexpected() }
        place += word.utf8.count
        return value
    }

    private func checkDepth(_ depth: Int) throws {
        if depth > Self.maxDepth { throw Problem(description: "it is nested deeper than \(Self.maxDepth)") }
    }

    private mutating func array(depth: Int) throws -> [JSON] {
        try checkDepth(depth)
        place += 1
        var elements: [JSON] = []
        skipSpaces()
        if take("]") { return elements }
        repeat {
            elements.append(try value(depth: depth))
            skipSpaces()
        } while take(",")
        guard take("]") else { throw unexpected() }
        return elements
    }

    private mutating func object(depth: Int) throws -> [String: JSON] {
        try checkDepth(depth)
        place += 1
        var members: [String: JSON] = [:]
        var keys: [String] = []
        skipSpaces()
        if take("}") { return members }
        repeat {
            skipSpaces()
            guard place < bytes.count, bytes[place] == UInt8(ascii: "\"") else { throw unexpected() }
            let key = try string()
            if depth == 1 { member = key }
            skipSpaces()
            guard take(":") else { throw unexpected() }
            guard members.updateValue(try value(depth: depth), forKey: key) == nil else {
                throw Problem(description: "the key '\(key.prefix(50))' is there twice")
            }
            keys.append(key)
            skipSpaces()
        } while take(",")
        guard take("}") else { throw unexpected() }
        if depth == 2 { order[member] = keys }
        return members
    }

    private mutating func string() throws -> String {
        place += 1
        var text: [UInt8] = []
        while place < bytes.count {
            let byte = bytes[place]
            place += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): text += Array(String(Character(try escape())).utf8)
            case ..<0x20: throw Problem(description: "a string has a control character at byte \(place - 1)")
            default: text.append(byte)
            }
        }
        throw unexpected()
    }

    private mutating func escape() throws -> Unicode.Scalar {
        guard place < bytes.count else { throw unexpected() }
        place += 1
        switch Character(Unicode.Scalar(bytes[place - 1])) {
        case "\"": return "\""
        case "\\": return "\\"
        case "/": return "/"
        case "b": return "\u{8}"
        case "f": return "\u{C}"
        case "n": return "\n"
        case "r": return "\r"
        case "t": return "\t"
        case "u":
            let unit = try hex()
            if let scalar = Unicode.Scalar(unit) { return scalar }
            // Half a pair: the other half must follow.
            guard unit < 0xDC00, take("\\"), take("u") else { throw Self.halfPair }
            let second = try hex()
            guard (0xDC00..<0xE000).contains(second),
                let scalar = Unicode.Scalar(0x10000 + (unit - 0xD800) << 10 + (second - 0xDC00))
            else { throw Self.halfPair }
            return scalar
        default:
            place -= 1
            throw unexpected()
        }
    }

    private static let halfPair = Problem(description: "a string has half a surrogate pair")

    private mutating func hex() throws -> UInt32 {
        guard place + 4 <= bytes.count else { throw unexpected() }
        let digits = bytes[place..<place + 4]
        guard digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let unit = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw unexpected() }
        place += 4
        return unit
    }

    /// Passes decimal digits; how many.
    private mutating func digits() -> Int {
        let start = place
        while place < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[place]) { place += 1 }
        return place - start
    }

    private mutating func number() throws -> JSON {
        let start = place
        _ = take("-")
        if !take("0"), digits() == 0 { throw unexpected() }
        var whole = true
        if take(".") {
            whole = false
            if digits() == 0 { throw unexpected() }
        }
        if take("e") || take("E") {
            whole = false
            if !take("+") { _ = take("-") }
            if digits() == 0 { throw unexpected() }
        }
        let text = String(decoding: bytes[start..<place], as: UTF8.self)
        if whole {
            guard let value = Int(text), (-Self.most...Self.most).contains(value) else {
                throw Problem(description: "the number \(text.prefix(20)) is beyond 2^53 - 1")
            }
            return .int(value)
        }
        guard let value = Double(text), value.isFinite else {
            throw Problem(description: "the number \(text.prefix(20)) is out of range")
        }
        return .double(value)
    }
}
