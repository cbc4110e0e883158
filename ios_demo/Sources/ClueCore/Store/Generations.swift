import Foundation

/// A set of weights of the store.
public struct Generation: Equatable, Sendable {
    public let id: Int
    /// The request that made it; nil for weights of a bundle.
    public let request: Int?
    /// The generation that it was made from; nil for weights of a bundle.
    public let parent: Int?
    /// Its file, which is there unless it was `erased`.
    public let file: URL
    /// SHA-256 of the file, in hex.
    public let sha256: String
    public let created: String
    /// When sealing erased it.
    public let erased: String?
    /// Whether the classifier answers by it.
    public let serving: Bool
}

/// Rows of `generations` and their files: what each was made from, which one serves, which requests that has the effect of.
final class Generations {
    private static let columns = "id, request_id, parent, file, sha256, created, erased, serving"
    /// The serving generation and its ancestors.
    private static let chain = """
        WITH RECURSIVE chain (id, request_id, parent) AS (
        SELECT id, request_id, parent FROM generations WHERE serving = 1
        UNION ALL SELECT g.id, g.request_id, g.parent FROM generations AS g JOIN chain ON g.id = chain.parent)
        """

    private let database: Database
    let folder: URL

    init(_ database: Database) {
        self.database = database
        folder = database.folder.appendingPathComponent("generations")
    }

    /// Where a generation of that id lies.
    func path(_ generation: Int) -> URL { folder.appendingPathComponent("\(sixDigits(generation)).safetensors") }

    /// The id of the next generation; only who holds the lock makes one.
    func nextID() throws -> Int {
        let rows = try database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'generations'")
        return (try rows.first?.int(0) ?? 0) + 1
    }

    /// The generation that a request made, or is to make.
    func of(_ request: Int) throws -> Int {
        let rows = try database.rows("SELECT id FROM generations WHERE request_id = ?", .integer(request))
        return try rows.first?.int(0) ?? nextID()
    }

    /// Every generation, oldest first.
    func all() throws -> [Generation] {
        try database.rows("SELECT \(Self.columns) FROM generations ORDER BY id").map(generation)
    }

    /// One generation. Throws ``ClueError`` when there is none of that id.
    func get(_ id: Int) throws -> Generation {
        let rows = try database.rows("SELECT \(Self.columns) FROM generations WHERE id = ?", .integer(id))
        if let row = rows.first { return try generation(row) }
        let kept = try all().filter { $0.erased == nil }.map { String($0.id) }.joined(separator: ", ")
        throw ClueError(.invalid, "there is no generation \(id): choose one of \(kept)")
    }

    /// The generation that serves now.
    func serving() throws -> Generation {
        let rows = try database.rows("SELECT \(Self.columns) FROM generations WHERE serving = 1")
        guard let row = rows.first else {
            throw ClueError(
                .storage,
                "the store \(database.folder.path) has no weights: another process is still creating it")
        }
        return try generation(row)
    }

    private func generation(_ row: SQLRow) throws -> Generation {
        let id = try row.int(0)
        let name = try row.optionalText(3).map { ($0 as NSString).lastPathComponent }
        return Generation(
            id: id, request: try row.optionalInt(1), parent: try row.optionalInt(2),
            file: name.map(folder.appendingPathComponent) ?? path(id), sha256: try row.text(4),
            created: try row.text(5), erased: try row.optionalText(6), serving: try row.int(7) == 1)
    }

    /// The new generation, whose file was written to the place of the next id, serves; returns its id.
    @discardableResult
    func insert(request: Int?, parent: Int?, sha256: String) throws -> Int {
        let id = try nextID()
        try database.transaction {
            try database.execute("UPDATE generations SET serving = 0 WHERE serving = 1")
            try database.execute(
                """
                INSERT INTO generations (id, request_id, parent, file, sha256, created, serving)
                VALUES (?, ?, ?, ?, ?, ?, 1)
                """,
                .integer(id), .optional(request), .optional(parent), .text(path(id).lastPathComponent),
                .text(sha256), .text(Clock.now()))
            try markRolledBack()
        }
        return id
    }

    /// Lets a kept generation serve; inside a transaction.
    func serve(_ generation: Int) throws {
        try database.execute("UPDATE generations SET serving = 0 WHERE serving = 1")
        try database.execute("UPDATE generations SET serving = 1 WHERE id = ?", .integer(generation))
        try markRolledBack()
    }

    /// `rolled_back` of every done request says whether the serving weights lack its effect.
    private func markRolledBack() throws {
        let effective = "id IN (SELECT request_id FROM chain WHERE request_id NOTNULL)"
        try database.execute(
            "\(Self.chain) UPDATE requests SET rolled_back = NULL WHERE rolled_back IS NOT NULL AND \(effective)")
        try database.execute(
            """
            \(Self.chain) UPDATE requests SET rolled_back = ?
            WHERE status = 'done' AND rolled_back IS NULL AND NOT \(effective)
            """, .text(Clock.now()))
    }

    /// The requests whose effect the serving weights have, oldest first.
    func effective() throws -> [Int] {
        try database.rows(
            "\(Self.chain) SELECT request_id FROM chain WHERE request_id IS NOT NULL ORDER BY request_id"
        ).map { try $0.int(0) }
    }

    /// A generation and its descendants.
    func family(_ generation: Int) throws -> Set<Int> {
        let rows = try database.rows(
            """
            WITH RECURSIVE family (id) AS (SELECT ? UNION ALL
            SELECT g.id FROM generations AS g JOIN family ON g.parent = family.id) SELECT id FROM family
            """, .integer(generation))
        return Set(try rows.map { try $0.int(0) })
    }

    /// Removes every file of the folder that no row names; only who holds the lock may.
    func removeUnnamed() throws {
        let rows = try database.rows("SELECT file FROM generations WHERE file NOTNULL")
        let known = Set(try rows.map { try $0.text(0) })
        for name in try Files.names(in: folder) where !known.contains(name) {
            try Files.erase(folder.appendingPathComponent(name))
        }
    }
}
