import Foundation

/// The keys of the samples: files of 32 bytes outside of the database, so that they can be destroyed. Called inside a transaction.
final class Keys {
    private let database: Database
    let folder: URL

    init(_ database: Database) {
        self.database = database
        folder = database.folder.appendingPathComponent("keys")
    }

    func path(_ key: Int) -> URL { folder.appendingPathComponent("\(sixDigits(key)).key") }

    /// A new key, of a request or of a class's intake; returns its id.
    func create(request: Int? = nil, label: Int? = nil) throws -> Int {
        let key = try database.insert(
            "INSERT INTO keys (request_id, label, created) VALUES (?, ?, ?)",
            .optional(request), .optional(label), .text(Clock.now()))
        // Left by a process that died before it committed the row: no sample was encrypted by it.
        try Files.erase(path(key))
        try Files.write(path(key), bytes: AESKey.random().bytes)
        return key
    }

    /// The key of new samples of a class; made when there is none.
    func intake(_ label: Int) throws -> Int {
        let rows = try database.rows(
            "SELECT id FROM keys WHERE label = ? AND destroyed IS NULL", .integer(label))
        return try rows.first?.int(0) ?? create(label: label)
    }

    /// The content of a key's file. Throws ``ClueError`` when it is gone or damaged.
    func read(_ key: Int) throws -> AESKey {
        let path = path(key)
        let content: [UInt8]
        do {
            content = try RegularFile.small(path, most: 1 << 16)
        } catch let error as ClueError {
            throw ClueError(.storage, "\(error.message): the samples that this key encrypts cannot be read")
        }
        guard content.count == AESKey.size else {
            throw ClueError(
                .storage, "the key \(path.path) has \(content.count) bytes instead of \(AESKey.size): it is damaged")
        }
        return AESKey(bytes: content)
    }

    /// Marks the keys that no sample has any longer; `destroyMarked` removes their files later.
    func giveUpUnused() throws {
        try database.execute(
            """
            UPDATE keys SET destroyed = ?, label = NULL WHERE destroyed IS NULL
            AND NOT EXISTS (SELECT 1 FROM samples WHERE key_id = keys.id)
            """, .text(Clock.now()))
    }

    /// Destroys every key file that belongs to no row, or to one that is marked as destroyed.
    ///
    /// It looks again in a transaction: another process writes the file of a new key before it commits the row.
    func destroyMarked() throws {
        guard try !withoutRow().isEmpty else { return }
        try database.transaction {
            for path in try withoutRow() { try Files.erase(path) }
        }
    }

    private func withoutRow() throws -> [URL] {
        let live = try database.rows("SELECT id FROM keys WHERE destroyed IS NULL")
        let names = Set(try live.map { path(try $0.int(0)).lastPathComponent })
        return try Files.names(in: folder).filter { !names.contains($0) }.map(folder.appendingPathComponent)
    }
}

/// A number as it stands in the store's file names: six digits, more when it needs more.
func sixDigits(_ number: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, 6 - digits.count)) + digits
}
