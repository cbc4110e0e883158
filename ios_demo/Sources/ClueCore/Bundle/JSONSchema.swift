import Foundation

/// Whether a JSON value fits a JSON Schema: the keywords that the schemas of contract/ use, as draft
/// 2020-12 says. A whole number is one without a point.
final class JSONSchema {
    /// What is wrong, and where in the value.
    struct Problem: Error {
        let place: [String]
        let text: String
    }

    private let root: JSON
    private var patterns: [String: NSRegularExpression] = [:]

    init(_ root: JSON) { self.root = root }

    /// A schema of contract/ that is part of the package. Throws `ClueError` where the package lacks it.
    static func shipped(_ name: String) throws -> JSONSchema {
        let text = try Shipped.bytes(name)
        return JSONSchema(try StrictJSON.parse(text, maxBytes: text.count))
    }

    /// - Throws: `Problem`, the first that is found.
    func check(_ value: JSON) throws { try check(value, root, []) }

    private func check(_ value: JSON, _ schema: JSON, _ place: [String]) throws {
        func fail(_ text: String) -> Problem { Problem(place: place, text: text) }
        func shown() -> String { String(value.text.prefix(80)) }

        if let reference = schema["$ref"]?.string {
            let part = reference.split(separator: "/").dropFirst().reduce(root) { $0[String($1)] ?? .null }
            try check(value, part, place)
        }
        let types = schema["type"].map { $0.array?.compactMap(\.string) ?? [$0.string ?? ""] }
        if let types, !types.contains(where: { Self.isOf($0, value) }) {
            throw fail("\(shown()) is not of type '\(types.joined(separator: "' or '"))'")
        }
        if let constant = schema["const"], constant != value { throw fail("\(shown()) is not \(constant.text)") }
        if let allowed = schema["enum"]?.array, !allowed.contains(value) {
            throw fail("\(shown()) is not one of \(JSON.array(allowed).text)")
        }
        if let branches = schema["oneOf"]?.array {
            try checkOneOf(value, branches, place)
        }
        if let branches = schema["anyOf"]?.array, !branches.contains(where: { (try? check(value, $0, place)) != nil }) {
            throw fail("\(shown()) is none of what can stand here")
        }
        switch value {
        case .object(let members): try check(object: members, schema, place)
        case .array(let elements): try check(array: elements, schema, place)
        case .string(let text):
            if let least = schema["minLength"]?.int, text.unicodeScalars.count < least {
                throw fail("\(shown()) is too short")
            }
            if let pattern = schema["pattern"]?.string, !matches(text, pattern) {
                throw fail("\(shown()) does not match '\(pattern)'")
            }
        case .int, .double:
            let number = value.number ?? 0
            if let least = schema["minimum"]?.number, number < least {
                throw fail("\(shown()) is less than \(least)")
            }
            if let most = schema["maximum"]?.number, number > most {
                throw fail("\(shown()) is more than \(most)")
            }
            if let bound = schema["exclusiveMinimum"]?.number, number <= bound {
                throw fail("\(shown()) is not more than \(bound)")
            }
        default: break
        }
    }

    /// Exactly one branch must fit; where none does, the problem is that of the branch that came furthest.
    private func checkOneOf(_ value: JSON, _ branches: [JSON], _ place: [String]) throws {
        var problems: [Problem] = []
        for branch in branches {
            do { try check(value, branch, place) } catch let problem as Problem { problems.append(problem) }
        }
        if problems.count == branches.count - 1 { return }
        let deepest = problems.max { $0.place.count < $1.place.count }
        if problems.count == branches.count, let deepest, deepest.place.count > place.count { throw deepest }
        throw Problem(place: place, text: "\(value.text.prefix(80)) is none of what can stand here")
    }

    private func check(object: [String: JSON], _ schema: JSON, _ place: [String]) throws {
        let properties = schema["properties"]?.object ?? [:]
        for name in schema["required"]?.array ?? [] where object[name.string ?? ""] == nil {
            throw Problem(place: place, text: "'\(name.string ?? "")' is missing")
        }
        if let least = schema["minProperties"]?.int, object.count < least {
            throw Problem(place: place, text: "it has too few members")
        }
        for (name, member) in object.sorted(by: { $0.key < $1.key }) {
            if let names = schema["propertyNames"] { try check(.string(name), names, place) }
            if let property = properties[name] {
                try check(member, property, place + [name])
            } else if let additional = schema["additionalProperties"] {
                guard additional != .bool(false) else {
                    throw Problem(place: place, text: "'\(name.prefix(80))' is not expected")
                }
                try check(member, additional, place + [name])
            }
        }
    }

    private func check(array: [JSON], _ schema: JSON, _ place: [String]) throws {
        func fail(_ text: String) -> Problem { Problem(place: place, text: text) }
        if let least = schema["minItems"]?.int, array.count < least { throw fail("it has too few elements") }
        if let most = schema["maxItems"]?.int, array.count > most { throw fail("it has too many elements") }
        if schema["uniqueItems"] == .bool(true), Set(array.map(\.text)).count != array.count {
            throw fail("it has an element twice")
        }
        if let items = schema["items"] {
            for (index, element) in array.enumerated() { try check(element, items, place + [String(index)]) }
        }
    }

    private static func isOf(_ type: String, _ value: JSON) -> Bool {
        switch (type, value) {
        case ("object", .object), ("array", .array), ("string", .string), ("boolean", .bool), ("null", .null),
            ("integer", .int), ("number", .int), ("number", .double):
            true
        default: false
        }
    }

    private func matches(_ text: String, _ pattern: String) -> Bool {
        let expression: NSRegularExpression
        if let known = patterns[pattern] {
            expression = known
        } else {
            // The patterns are the contract's, not the manifest's: one that cannot be read is a fault of ours.
            guard let made = try? NSRegularExpression(pattern: pattern) else { return false }
            patterns[pattern] = made
            expression = made
        }
        return expression.firstMatch(in: text, range: NSRange(text.startIndex..., in: text)) != nil
    }
}
