import Foundation

/// A stored sample.
public struct Sample: Equatable, Sendable {
    public let id: Int
    /// Index of its class.
    public let label: Int
    /// SHA-256 of its pixels, in hex.
    public let sha256: String
    /// When it was added: UTC, ISO 8601.
    public let added: String
    /// The latest request that has it.
    public let request: Int?
}

/// Rows of `samples` and `pixels`: stored once for a label, encrypted, each by a key of its own that another key wraps.
final class Samples {
    private let database: Database
    private let keys: Keys

    init(_ database: Database, _ keys: Keys) {
        (self.database, self.keys) = (database, keys)
    }

    /// Stores images; returns the ids of those that were not there with this label. All or none are stored.
    func add(_ images: Images, label: Int) throws -> [Int] {
        try database.transaction {
            var new: [Int] = []
            var wrapper: (id: Int, key: AESKey)?
            for index in 0..<images.count {
                let content = Array(images.pixels[index * images.size..<(index + 1) * images.size])
                let digest = Sha256.hex(content)
                let there = try database.rows(
                    "SELECT id FROM samples WHERE label = ? AND sha256 = ?", .integer(label), .text(digest))
                if !there.isEmpty { continue }
                let wrapped = try wrapper ?? intake(label)
                wrapper = wrapped
                let shape = (images.height, images.width, images.channels)
                new.append(try insert(content, shape, digest, label, wrapped.id, wrapped.key, Clock.now()))
            }
            return new
        }
    }

    private func intake(_ label: Int) throws -> (id: Int, key: AESKey) {
        let id = try keys.intake(label)
        return (id, try keys.read(id))
    }

    /// Encrypts and inserts one sample of `shape` (height, width, channels); returns its id.
    @discardableResult
    func insert(
        _ content: [UInt8], _ shape: (Int, Int, Int), _ digest: String, _ label: Int, _ keyID: Int,
        _ wrapper: AESKey, _ added: String, id: Int? = nil
    ) throws -> Int {
        let key = AESKey.random()
        let sample = try database.insert(
            """
            INSERT INTO samples (id, sha256, label, height, width, channels, key_id, wrapped, added)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            .optional(id), .text(digest), .integer(label), .integer(shape.0), .integer(shape.1), .integer(shape.2),
            .integer(keyID), .blob(try wrapper.lock(key.bytes, about("key", digest, label))), .text(added))
        try database.execute(
            "INSERT INTO pixels VALUES (?, ?)", .integer(sample),
            .blob(try key.lock(content, about("sample", digest, label))))
        return sample
    }

    private func about(_ what: String, _ digest: String, _ label: Int) -> [UInt8] {
        Array("clue-\(what)-v1 \(digest) \(label)".utf8)
    }

    /// The ids of a class's samples, oldest first.
    func ids(_ label: Int) throws -> [Int] {
        try database.rows("SELECT id FROM samples WHERE label = ? ORDER BY id", .integer(label)).map { try $0.int(0) }
    }

    /// How many samples each label has; labels without any are left out.
    func counts() throws -> [Int: Int] {
        var found: [Int: Int] = [:]
        for row in try database.rows("SELECT label, count(*) FROM samples GROUP BY label") {
            found[try row.int(0)] = try row.int(1)
        }
        return found
    }

    /// The samples of a label, or all, oldest first.
    func listed(_ label: Int?) throws -> [Sample] {
        let chosen = label == nil ? "" : "WHERE label = ?"
        var found: [Sample] = []
        try database.each(
            """
            SELECT id, label, sha256, added, (SELECT max(request_id) FROM request_samples
            WHERE sample_id = samples.id) FROM samples \(chosen) ORDER BY id
            """, label.map { [.integer($0)] } ?? []
        ) { row in
            found.append(
                Sample(
                    id: try row.int(0), label: try row.int(1), sha256: try row.text(2), added: try row.text(3),
                    request: try row.optionalInt(4)))
        }
        return found
    }

    /// The samples of a request with their labels, in the order of their positions.
    ///
    /// Throws ``ClueError`` when some were erased, a key is gone or a sample was changed.
    func labelled(of request: Int, height: Int, width: Int, channels: Int) throws -> Labelled {
        let count = try countAll(of: request)
        let size = height * width * channels
        var pixels = [UInt8](repeating: 0, count: count * size)
        var labels = [Int](repeating: 0, count: count)
        var wrappers: [Int: AESKey] = [:]
        try database.each(
            """
            SELECT position, samples.id, sha256, label, key_id, wrapped, content FROM request_samples
            JOIN samples ON samples.id = request_samples.sample_id
            JOIN pixels ON pixels.sample_id = samples.id WHERE request_id = ?
            """, [.integer(request)]
        ) { row in
            let (position, sample, digest, label, keyID) = try (
                row.int(0), row.int(1), row.text(2), row.int(3), row.int(4)
            )
            let wrapper = try wrappers[keyID] ?? keys.read(keyID)
            wrappers[keyID] = wrapper
            guard
                let key = wrapper.unlock(try row.blob(5), about("key", digest, label)), key.count == AESKey.size,
                let clear = AESKey(bytes: key).unlock(try row.blob(6), about("sample", digest, label)),
                clear.count == size, (0..<count).contains(position)
            else { throw damaged(sample) }
            pixels.replaceSubrange(position * size..<(position + 1) * size, with: clear)
            labels[position] = label
        }
        let images = Images(count: count, height: height, width: width, channels: channels, pixels: pixels)
        return Labelled(images: images, labels: labels)
    }

    private func countAll(of request: Int) throws -> Int {
        let rows = try database.rows(
            """
            SELECT (SELECT count(*) FROM request_samples WHERE request_id = id), samples FROM requests
            WHERE id = ?
            """, .integer(request))
        guard let row = rows.first else { throw ClueError(.invalid, "no request \(request) is stored") }
        let (count, asked) = (try row.int(0), try row.int(1))
        guard count == asked else {
            throw ClueError(
                .invalid, "request \(request) has \(count) of its \(asked) samples: others were erased")
        }
        return count
    }

    // MARK: keys of requests

    /// Brings the samples of a new request under keys of its own; inside a transaction.
    ///
    /// A key all of whose samples the request has becomes its own; other samples get a new one.
    func take(_ request: Int) throws {
        var own: (id: Int, key: AESKey)?
        for row in try database.rows(
            """
            SELECT key_id, count(*) FROM request_samples JOIN samples ON samples.id = sample_id
            WHERE request_id = ? GROUP BY key_id
            """, .integer(request))
        {
            let (keyID, mine) = (try row.int(0), try row.int(1))
            if try database.value("SELECT count(*) FROM samples WHERE key_id = ?", .integer(keyID)) == .integer(mine) {
                try database.execute(
                    "UPDATE keys SET request_id = ?, label = NULL WHERE id = ?", .integer(request), .integer(keyID))
                continue
            }
            if own == nil {
                let made = try keys.create(request: request)
                own = (made, try keys.read(made))
            }
            let chosen = try database.rows(
                """
                SELECT samples.id, sha256, label, wrapped FROM request_samples
                JOIN samples ON samples.id = sample_id WHERE request_id = ? AND key_id = ?
                """, .integer(request), .integer(keyID))
            if let own { try rewrap(chosen, from: try keys.read(keyID), to: own) }
        }
    }

    /// Wraps every sample's key by a new one and marks the old ones destroyed; inside a transaction.
    ///
    /// A key that is in use may also have wrapped the keys of samples that are gone, in an earlier page.
    func renewKeys() throws {
        for row in try database.rows("SELECT id, request_id, label FROM keys WHERE destroyed IS NULL") {
            let id = try row.int(0)
            let old = try keys.read(id)
            try database.execute(
                "UPDATE keys SET destroyed = ?, label = NULL WHERE id = ?", .text(Clock.now()), .integer(id))
            let made = try keys.create(request: try row.optionalInt(1), label: try row.optionalInt(2))
            let new = (id: made, key: try keys.read(made))
            while true {
                let chosen = try database.rows(
                    "SELECT id, sha256, label, wrapped FROM samples WHERE key_id = ? LIMIT 10000", .integer(id))
                if chosen.isEmpty { break }
                try rewrap(chosen, from: old, to: new)
            }
        }
        try keys.giveUpUnused()
    }

    private func rewrap(_ chosen: [SQLRow], from old: AESKey, to new: (id: Int, key: AESKey)) throws {
        let changed: [[SQLValue]] = try chosen.map { row in
            let about = about("key", try row.text(1), try row.int(2))
            guard let key = old.unlock(try row.blob(3), about) else { throw damaged(try row.int(0)) }
            return [.integer(new.id), .blob(try new.key.lock(key, about)), row[0]]
        }
        try database.many("UPDATE samples SET key_id = ?, wrapped = ? WHERE id = ?", changed)
    }

    private func damaged(_ sample: Int) -> ClueError {
        ClueError(.storage, "sample \(sample) of \(database.folder.path) was changed or is damaged")
    }
}
