import CSQLite
import Foundation

/// `store.db` in a folder that exists: connection, statements, transactions.
///
/// One thread at a time uses it; other threads and processes may open the same file. Errors of SQLite are thrown as ``ClueError``.
final class Database {
    let folder: URL
    private var handle: OpaquePointer?
    /// A commit failed, and its pages may lie whole in the log.
    private var unsettled = false

    /// Opens the file, or makes it.
    init(folder: URL) throws {
        self.folder = folder
        let path = folder.appendingPathComponent("store.db").path
        // SQLite gives -wal and -shm the mode of the database.
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw ClueError.system("cannot use the store \(folder.path)") }
        Foundation.close(descriptor)
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX
        guard sqlite3_open_v2(path, &handle, flags, nil) == SQLITE_OK else { throw failure() }
        sqlite3_busy_timeout(handle, 10_000)
        do {
            try configure()
        } catch {
            close()
            throw error
        }
    }

    deinit { close() }

    /// Closes the connection. May be called again.
    func close() {
        sqlite3_close_v2(handle)
        handle = nil
    }

    private func configure() throws {
        // A database that somebody else made may hold statements of its own: none of them is carried out.
        try execute("PRAGMA trusted_schema = OFF")
        try execute("PRAGMA cell_size_check = ON")
        for row in try rows("SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')") {
            let found = "\(try row.text(0)) \(try row.text(1))"
            throw ClueError(
                .storage, "the store \(folder.path) has the \(found), which no runtime makes: do not use it")
        }
        try execute("PRAGMA journal_mode = WAL")
        try execute("PRAGMA synchronous = FULL")
        // Apple's fsync leaves the content in the drive's own cache; other systems have no such flush and ignore this.
        try execute("PRAGMA fullfsync = ON")
        try execute("PRAGMA foreign_keys = ON")
        // Deleted rows are overwritten with zeros.
        try execute("PRAGMA secure_delete = ON")
    }

    // MARK: statements

    /// Carries out one statement; returns how many rows it changed.
    @discardableResult
    func execute(_ statement: String, _ values: SQLValue...) throws -> Int {
        try each(statement, values) { _ in }
        return Int(sqlite3_changes(handle))
    }

    /// Inserts a row; returns its id.
    func insert(_ statement: String, _ values: SQLValue...) throws -> Int {
        try each(statement, values) { _ in }
        return Int(sqlite3_last_insert_rowid(handle))
    }

    /// Carries out a statement for each row of values.
    func many(_ statement: String, _ rows: some Sequence<[SQLValue]>) throws {
        let prepared = try prepare(statement)
        defer { sqlite3_finalize(prepared) }
        for values in rows {
            try bind(values, to: prepared)
            try step(prepared) { _ in }
            sqlite3_reset(prepared)
        }
    }

    /// All rows of a query.
    func rows(_ query: String, _ values: SQLValue...) throws -> [SQLRow] {
        var found: [SQLRow] = []
        try each(query, values) { found.append($0) }
        return found
    }

    /// The only column of a query that gives one row.
    func value(_ query: String, _ values: SQLValue...) throws -> SQLValue {
        var found: SQLValue = .null
        try each(query, values) { found = $0[0] }
        return found
    }

    /// The rows of a query one by one: a million of them need not fit the memory.
    func each(_ query: String, _ values: [SQLValue] = [], _ body: (SQLRow) throws -> Void) throws {
        let prepared = try prepare(query)
        defer { sqlite3_finalize(prepared) }
        try bind(values, to: prepared)
        try step(prepared, body)
    }

    private func prepare(_ statement: String) throws -> OpaquePointer? {
        var prepared: OpaquePointer?
        guard sqlite3_prepare_v2(handle, statement, -1, &prepared, nil) == SQLITE_OK else { throw failure() }
        return prepared
    }

    private func bind(_ values: [SQLValue], to prepared: OpaquePointer?) throws {
        // SQLite copies what it is given (SQLITE_TRANSIENT): it lives only as long as the call.
        let transient = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
        for (index, value) in zip(Int32(1)..., values) {
            let code =
                switch value {
                case .null: sqlite3_bind_null(prepared, index)
                case .integer(let number): sqlite3_bind_int64(prepared, index, sqlite3_int64(number))
                case .real(let number): sqlite3_bind_double(prepared, index, number)
                case .text(let text): sqlite3_bind_text(prepared, index, text, -1, transient)
                case .blob(let bytes):
                    bytes.isEmpty
                        ? sqlite3_bind_zeroblob(prepared, index, 0)
                        : sqlite3_bind_blob(prepared, index, bytes, Int32(bytes.count), transient)
                }
            guard code == SQLITE_OK else { throw failure() }
        }
    }

    private func step(_ prepared: OpaquePointer?, _ body: (SQLRow) throws -> Void) throws {
        while true {
            switch sqlite3_step(prepared) {
            case SQLITE_ROW:
                let count = sqlite3_column_count(prepared)
                try body(SQLRow(columns: try (0..<count).map { try column(prepared, $0) }))
            case SQLITE_DONE: return
            default: throw failure()
            }
        }
    }

    private func column(_ prepared: OpaquePointer?, _ index: Int32) throws -> SQLValue {
        switch sqlite3_column_type(prepared, index) {
        case SQLITE_INTEGER: return .integer(Int(sqlite3_column_int64(prepared, index)))
        case SQLITE_FLOAT: return .real(sqlite3_column_double(prepared, index))
        case SQLITE_TEXT:
            let bytes = UnsafeBufferPointer(
                start: sqlite3_column_text(prepared, index), count: Int(sqlite3_column_bytes(prepared, index)))
            guard let text = String(validating: bytes) else {
                throw ClueError(.storage, "the store \(folder.path) is damaged: a text is not UTF-8")
            }
            return .text(text)
        case SQLITE_BLOB:
            let count = Int(sqlite3_column_bytes(prepared, index))
            guard let start = sqlite3_column_blob(prepared, index) else { return .blob([]) }
            return .blob([UInt8](UnsafeRawBufferPointer(start: start, count: count)))
        default: return .null
        }
    }

    private func failure() -> ClueError {
        let told = handle.map { String(cString: sqlite3_errmsg($0)) } ?? "out of memory"
        return ClueError(.storage, "the store \(folder.path) failed: \(told); nothing was changed")
    }

    // MARK: transactions

    /// Whether a transaction is open.
    var inTransaction: Bool { sqlite3_get_autocommit(handle) == 0 }

    /// All or nothing; one inside another is part of the outer one. Nobody else writes meanwhile.
    @discardableResult
    func transaction<Result>(_ body: () throws -> Result) throws -> Result {
        if inTransaction { return try body() }
        try execute("BEGIN IMMEDIATE")
        do {
            let result = try body()
            let before = unsettled
            unsettled = true
            try execute("COMMIT")
            unsettled = before
            return result
        } catch {
            if inTransaction { _ = try? execute("ROLLBACK") }
            throw error
        }
    }

    /// After a commit that failed, makes sure that it did: its pages may lie whole in the log, and the next process to open the
    /// database would find it done. Any write takes their place. To be called before a file is removed because no row names it.
    func settle() throws {
        guard unsettled else { return }
        try transaction {
            guard case .integer(let version) = try value("PRAGMA user_version") else { return }
            try execute("PRAGMA user_version = \(version)")
        }
        unsettled = false
    }
}

extension String {
    /// The text of bytes that are UTF-8; nil for others.
    fileprivate init?(validating bytes: UnsafeBufferPointer<UInt8>) {
        self.init(bytes: bytes, encoding: .utf8)
    }
}
