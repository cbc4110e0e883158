/// JSON in its canonical form (RFC 8785), so that a hash or a signature over it means the same everywhere.
enum CanonicalJSON {
    /// No receipt comes near this; a larger one is refused before it is parsed.
    static let mostBytes = 1 << 20
    private static let exact = 1 << 53

    /// The canonical text. Throws ``ClueError`` for numbers that are not finite and whole numbers beyond 2^53.
    static func text(_ value: JSON) throws -> String {
        var out = ""
        try write(value, to: &out)
        return out
    }

    /// The value of canonical JSON. Throws ``ClueError`` unless `content` is exactly the canonical form of it, so that two files with the
    /// same meaning have the same bytes.
    static func parse(_ content: [UInt8]) throws -> JSON {
        guard content.count <= mostBytes else {
            throw ClueError(.invalid, "it has \(content.count) bytes, more than any receipt (\(mostBytes))")
        }
        let value: JSON
        do {
            value = try StrictJSON.parse(content, maxBytes: mostBytes)
        } catch {
            throw ClueError(.invalid, "it is no JSON: \(error)")
        }
        guard Array(try text(value).utf8) == content else {
            throw ClueError(
                .invalid, "it is not in canonical form (RFC 8785): it was changed, or another program wrote it")
        }
        return value
    }

    private static func write(_ value: JSON, to out: inout String) throws {
        switch value {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .int(let value):
            guard value.magnitude <= UInt(exact) else {
                throw ClueError(.invalid, "canonical JSON has no whole number beyond 2^53: a double would not hold it exactly")
            }
            out += String(value)
        case .double(let value): out += try number(value)
        case .string(let text): quote(text, to: &out)
        case .array(let elements):
            out += "["
            for (index, element) in elements.enumerated() {
                if index > 0 { out += "," }
                try write(element, to: &out)
            }
            out += "]"
        case .object(let members):
            // By UTF-16 code units, which is not the order of Swift's strings.
            let sorted = members.sorted { $0.key.utf16.lexicographicallyPrecedes($1.key.utf16) }
            out += "{"
            for (index, member) in sorted.enumerated() {
                if index > 0 { out += "," }
                quote(member.key, to: &out)
                out += ":"
                try write(member.value, to: &out)
            }
            out += "}"
        }
    }

    private static func quote(_ text: String, to out: inout String) {
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\u{8}": out += "\\b"
            case "\t": out += "\\t"
            case "\n": out += "\\n"
            case "\u{C}": out += "\\f"
            case "\r": out += "\\r"
            case "\u{0}"..<"\u{20}":
                out += scalar.value < 16 ? "\\u000" : "\\u00"
                out += String(scalar.value, radix: 16)
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }

    /// As ECMAScript's Number::toString writes a double: the shortest digits that read back as the same number, which Swift's own
    /// description has too, in another layout.
    static func number(_ value: Double) throws -> String {
        guard value.isFinite else { throw ClueError(.invalid, "canonical JSON has no number \(value)") }
        if value == 0 { return "0" }
        let parts = value.magnitude.description.split(separator: "e")
        let halves = parts[0].split(separator: ".", omittingEmptySubsequences: false)
        let (whole, fraction) = (String(halves[0]), halves.count > 1 ? String(halves[1]) : "")
        let all = whole + fraction
        var digits = String(all.drop { $0 == "0" })
        // The value is 0.digits times ten to the power of `point`.
        let exponent = parts.count > 1 ? Int(parts[1]) ?? 0 : 0
        let point = whole.count + exponent - (all.count - digits.count)
        while digits.hasSuffix("0") { digits.removeLast() }
        let sign = value < 0 ? "-" : ""
        switch point {
        case digits.count...21 where digits.count <= 21:
            return sign + digits + String(repeating: "0", count: point - digits.count)
        case 1...21: return sign + digits.prefix(point) + "." + digits.dropFirst(point)
        case -5...0: return sign + "0." + String(repeating: "0", count: -point) + digits
        default:
            let tail = digits.count > 1 ? "." + digits.dropFirst() : ""
            return sign + digits.prefix(1) + tail + "e" + (point > 0 ? "+" : "") + String(point - 1)
        }
    }
}
