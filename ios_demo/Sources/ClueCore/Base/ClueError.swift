import Foundation

/// The one error that users see: a sentence that says what is wrong, where, and what would be right.
public struct ClueError: Error, Sendable, Equatable, CustomStringConvertible, LocalizedError {
    /// What an app may want to react to; the sentence is for people.
    public enum Kind: String, Sendable {
        /// An argument is out of range or names something that is not there.
        case invalid
        /// A bundle is damaged, contradicts itself, is newer than this package or not signed as it must be.
        case bundle
        /// An engine cannot load or run a program.
        case engine
        /// A file or the database cannot be read or written, or there is no space.
        case storage
        /// Another process runs, seals or rolls back.
        case busy
        /// A request is not in a state from which it could do that.
        case transition
        /// A new bundle's weights bring back what was forgotten, and the policy is to refuse that.
        case broughtBack
    }

    public let kind: Kind
    public let message: String

    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    public var description: String { message }
    public var errorDescription: String? { message }

    /// The error for a name that is none of `choices`; lists them, the closest first.
    public static func unknown(_ what: String, _ given: String, _ choices: some Sequence<String>) -> ClueError {
        let known = choices.sorted()
        let close = known.min { distance($0, given) < distance($1, given) }
            .flatMap { distance($0, given) <= max(2, given.count / 2) ? "did you mean '\($0)'? " : nil }
        let list = known.isEmpty ? "none" : known.joined(separator: ", ")
        return ClueError(.invalid, "unknown \(what) '\(given)': \(close ?? "")Choices: \(list)")
    }

    /// Levenshtein's distance: how many letters are to be put in, taken out or replaced.
    private static func distance(_ one: String, _ other: String) -> Int {
        let columns = Array(other)
        var row = Array(0...columns.count)
        for (i, letter) in one.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, column) in columns.enumerated() {
                let replaced = diagonal + (letter == column ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(replaced, row[j] + 1, row[j + 1] + 1)
            }
        }
        return row[columns.count]
    }
}
