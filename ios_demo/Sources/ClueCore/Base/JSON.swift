/// An object of JSON; the order of its members has no meaning.
public typealias JSONObject = [String: JSON]

/// A JSON value. Whole numbers written without a point are `int`; equality tells them from `double`.
public enum JSON: Equatable, Sendable {
    case null
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    /// The member of an object; nil for another type of value or a missing member.
    public subscript(key: String) -> JSON? {
        guard case .object(let members) = self else { return nil }
        return members[key]
    }

    /// A whole number; nil for another type of value.
    public var int: Int? {
        guard case .int(let value) = self else { return nil }
        return value
    }

    /// Any number; nil for another type of value.
    public var number: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    /// A text; nil for another type of value.
    public var string: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    /// A boolean; nil for another type of value.
    public var bool: Bool? {
        guard case .bool(let value) = self else { return nil }
        return value
    }

    /// The elements of an array; nil for another type of value.
    public var array: [JSON]? {
        guard case .array(let value) = self else { return nil }
        return value
    }

    /// The members of an object; nil for another type of value.
    public var object: [String: JSON]? {
        guard case .object(let value) = self else { return nil }
        return value
    }

    /// Whether it is null.
    public var isNull: Bool { self == .null }

    /// Every string in the value, keys too.
    var strings: [String] {
        switch self {
        case .string(let text): [text]
        case .array(let elements): elements.flatMap(\.strings)
        case .object(let members): members.flatMap { [$0.key] + $0.value.strings }
        default: []
        }
    }
}

// MARK: - Writing

extension JSON {
    /// The value as JSON without spaces, members in the order of their keys. A number that is not finite, which
    /// JSON does not have, is null.
    public var text: String {
        var out = ""
        write(to: &out)
        return out
    }

    private func write(to out: inout String) {
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .int(let value): out += String(value)
        case .double(let value): out += value.isFinite ? value.description : "null"
        case .string(let value): Self.quote(value, to: &out)
        case .array(let elements):
            out += "["
            for (index, element) in elements.enumerated() {
                if index > 0 { out += "," }
                element.write(to: &out)
            }
            out += "]"
        case .object(let members):
            out += "{"
            for (index, member) in members.sorted(by: { $0.key < $1.key }).enumerated() {
                if index > 0 { out += "," }
                Self.quote(member.key, to: &out)
                out += ":"
                member.value.write(to: &out)
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
            case "\u{0}"..<"\u{20}":
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}
