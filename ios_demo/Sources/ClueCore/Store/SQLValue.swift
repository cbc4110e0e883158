/// A value of a column, or of a `?` of a statement.
enum SQLValue: Equatable, Sendable {
    case null
    case integer(Int)
    case real(Double)
    case text(String)
    case blob([UInt8])

    /// The value of an optional number; null where there is none.
    static func optional(_ value: Int?) -> SQLValue { value.map(SQLValue.integer) ?? .null }
    /// The value of an optional text; null where there is none.
    static func optional(_ value: String?) -> SQLValue { value.map(SQLValue.text) ?? .null }
}

/// A row of a query: its columns from 0 on.
///
/// A column that does not hold what is asked for says that the file is damaged, or not ours: that is an error of the store, never a
/// crash.
struct SQLRow {
    let columns: [SQLValue]

    subscript(index: Int) -> SQLValue { columns[index] }

    func int(_ index: Int) throws -> Int {
        guard case .integer(let value) = columns[index] else { throw unexpected(index, "a whole number") }
        return value
    }

    func text(_ index: Int) throws -> String {
        guard case .text(let value) = columns[index] else { throw unexpected(index, "a text") }
        return value
    }

    func blob(_ index: Int) throws -> [UInt8] {
        guard case .blob(let value) = columns[index] else { throw unexpected(index, "bytes") }
        return value
    }

    func optionalInt(_ index: Int) throws -> Int? {
        columns[index] == .null ? nil : try int(index)
    }

    func optionalText(_ index: Int) throws -> String? {
        columns[index] == .null ? nil : try text(index)
    }

    private func unexpected(_ index: Int, _ wanted: String) -> ClueError {
        ClueError(.storage, "the store is damaged: column \(index) of a row is not \(wanted)")
    }
}
