import Foundation

/// Makes the tables of a new database; a database of an older version becomes one of this version with everything kept.
enum Migration {
    /// `user_version` of a store of this version.
    static let userVersion = 2
    /// Seconds for an older runtime that works on the store.
    private static let wait = 10.0
    private static let tables = ["bundle", "samples", "requests", "request_samples", "generations", "records"]

    /// Throws ``ClueError`` for a database of a newer version, and while an older runtime works on it.
    static func prepare(_ database: Database, _ lock: StoreLock, _ samples: Samples, _ keys: Keys) throws {
        let found = try version(database)
        guard found <= userVersion else {
            throw ClueError(
                .storage,
                "the store \(database.folder.path) was made by a newer runtime (version \(found)): update this one")
        }
        if found == 0 { try database.transaction { try create(database) } }
        if found == 1 {
            try lock.hold(wait: wait) {
                // Another process may have done it meanwhile.
                if try version(database) == 1 { try fromVersion1(database, samples, keys) }
            }
        }
    }

    private static func version(_ database: Database) throws -> Int {
        guard case .integer(let version) = try database.value("PRAGMA user_version") else { return 0 }
        return version
    }

    private static func create(_ database: Database) throws {
        let schema = String(decoding: try Shipped.bytes("schema.sql"), as: UTF8.self)
        let lines = schema.split(separator: "\n").map { $0.split(separator: "--", omittingEmptySubsequences: false)[0] }
        for statement in lines.joined(separator: "\n").split(separator: ";") {
            if statement.contains(where: { !$0.isWhitespace }) { try database.execute(String(statement)) }
        }
        try database.execute("PRAGMA user_version = \(userVersion)")
    }

    private static func fromVersion1(_ database: Database, _ samples: Samples, _ keys: Keys) throws {
        // Renamed tables do not take the references to them along, and nothing checks references meanwhile.
        try database.execute("PRAGMA foreign_keys = OFF")
        try database.execute("PRAGMA legacy_alter_table = ON")
        defer {
            _ = try? database.execute("PRAGMA legacy_alter_table = OFF")
            _ = try? database.execute("PRAGMA foreign_keys = ON")
        }
        try database.transaction {
            for table in tables { try database.execute("ALTER TABLE \(table) RENAME TO old_\(table)") }
            try database.execute("DROP INDEX one_serving")
            try create(database)
            try copyRows(database)
            try encrypt(database, samples, keys)
            for table in tables { try database.execute("DROP TABLE old_\(table)") }
            if let broken = try database.rows("PRAGMA foreign_key_check").first {
                throw ClueError(
                    .storage,
                    "the store \(database.folder.path) is damaged: table \(try broken.text(0)) refers to a missing row")
            }
        }
        // Version 1 kept the pixels as they are: no page and no log may have them any longer.
        for statement in ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            try database.execute(statement)
        }
    }

    private static func copyRows(_ database: Database) throws {
        let dead = "status IN ('queued', 'running', 'verifying')"
        try database.execute("INSERT INTO bundle SELECT key, value FROM old_bundle")
        // Each generation of version 1 was made from the one before it; what was unfinished had died.
        try database.execute(
            """
            INSERT INTO generations (id, request_id, parent, file, sha256, created, serving)
            SELECT id, request_id, CASE WHEN request_id NOTNULL THEN lag(id) OVER (ORDER BY id) END,
            file, sha256, created, serving FROM old_generations ORDER BY id
            """)
        try database.execute(
            """
            INSERT INTO requests (id, kind, label, class, status, seed, scalars, samples, base_generation,
            reason, evidence, created, finished) SELECT id, 'class', label, class,
            CASE WHEN \(dead) THEN 'failed' ELSE status END, seed, scalars,
            (SELECT count(*) FROM old_request_samples WHERE request_id = r.id),
            (SELECT parent FROM generations WHERE request_id = r.id),
            CASE WHEN \(dead) THEN 'interrupted' ELSE reason END, evidence,
            created, CASE WHEN \(dead) THEN ? ELSE finished END FROM old_requests AS r ORDER BY id
            """, .text(Clock.now()))
        // Version 1 named files after requests: new generations come after all of these numbers.
        try database.execute(
            """
            UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(id), 0) FROM requests))
            WHERE name = 'generations'
            """)
        try database.execute(
            """
            INSERT INTO records (id, request_id, phase, record)
            SELECT id, request_id, phase, record FROM old_records ORDER BY id
            """)
    }

    private static func encrypt(_ database: Database, _ samples: Samples, _ keys: Keys) throws {
        for row in try database.rows("SELECT DISTINCT label FROM old_samples") {
            let label = try row.int(0)
            let keyID = try keys.intake(label)
            let wrapper = try keys.read(keyID)
            try database.each(
                "SELECT id, sha256, height, width, channels, pixels, added FROM old_samples WHERE label = ?",
                [.integer(label)]
            ) { row in
                let shape = (try row.int(2), try row.int(3), try row.int(4))
                try samples.insert(
                    try row.blob(5), shape, try row.text(1), label, keyID, wrapper, try row.text(6),
                    id: try row.int(0))
            }
        }
        try database.execute("INSERT INTO request_samples SELECT * FROM old_request_samples")
        // The latest request that has a sample has its key.
        for row in try database.rows("SELECT id FROM requests ORDER BY id") { try samples.take(try row.int(0)) }
        try keys.giveUpUnused()
    }
}
