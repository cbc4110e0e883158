import Foundation

/// A row of `requests`: what was asked, how far it came.
public struct Request: Equatable, Sendable {
    public let id: Int
    /// "class" or "samples".
    public let kind: String
    /// Index and name of the class; nil for a set of samples.
    public let label: Int?
    public let className: String?
    public let status: RequestStatus
    public let seed: UInt64
    /// Every scalar of the method as this request uses it.
    public let scalars: [String: Double]
    public let options: Options
    /// How many samples it has; stays when they are erased.
    public let samples: Int
    public let retryOf: Int?
    /// The weights that it began with; nil while it never ran.
    public let baseGeneration: Int?
    /// Why it failed or paused.
    public let reason: String?
    /// See ``Outcome/evidence``.
    public let evidence: JSONObject
    /// Times are UTC, ISO 8601.
    public let created: String
    public let started: String?
    public let finished: String?
    /// When a rollback or a new bundle took its effect away.
    public let rolledBack: String?
    public let sealBegan: String?
    public let sealed: String?

    /// What it forgets, in words.
    public var about: String { className ?? "\(samples) samples" }

    static let columns = """
        id, kind, label, class, status, seed, scalars, options, samples, retry_of, base_generation, reason, evidence, created, \
        started, finished, rolled_back, seal_began, sealed
        """

    init(_ row: SQLRow) throws {
        id = try row.int(0)
        kind = try row.text(1)
        label = try row.optionalInt(2)
        className = try row.optionalText(3)
        guard let status = RequestStatus(rawValue: try row.text(4)) else {
            throw ClueError(.storage, "request \(id) has the state \(try row.text(4)), which no runtime knows")
        }
        self.status = status
        seed = UInt64(bitPattern: Int64(try row.int(5)))
        scalars = try Self.object(row, 6).compactMapValues(\.number)
        options = try Options(row: try Self.object(row, 7))
        samples = try row.int(8)
        retryOf = try row.optionalInt(9)
        baseGeneration = try row.optionalInt(10)
        reason = try row.optionalText(11)
        evidence = try Self.object(row, 12)
        created = try row.text(13)
        started = try row.optionalText(14)
        finished = try row.optionalText(15)
        rolledBack = try row.optionalText(16)
        sealBegan = try row.optionalText(17)
        sealed = try row.optionalText(18)
    }

    private static func object(_ row: SQLRow, _ column: Int) throws -> JSONObject {
        guard let text = try row.optionalText(column) else { return [:] }
        return try StoredJSON.object(text)
    }
}

/// JSON that the store has written, read back.
enum StoredJSON {
    private static let mostBytes = 1 << 26

    static func value(_ text: String) throws -> JSON {
        guard let value = try? StrictJSON.parse(Array(text.utf8), maxBytes: mostBytes) else {
            throw ClueError(.storage, "the store is damaged: a row has no JSON")
        }
        return value
    }

    static func object(_ text: String) throws -> JSONObject {
        guard let members = try value(text).object else {
            throw ClueError(.storage, "the store is damaged: a row has no JSON object")
        }
        return members
    }
}

/// Rows of `requests`, `request_samples` and `records`, which go from state to state, each change one transaction.
final class Requests {
    /// The states of a request that has not ended, for SQL.
    static let unfinished = "('queued', 'running', 'verifying', 'paused')"
    static let interruptedReason = "interrupted"
    /// The reason of a running request that is to end.
    static let cancelAsked = "cancel asked"

    private let database: Database
    private let samples: Samples

    init(_ database: Database, _ samples: Samples) {
        (self.database, self.samples) = (database, samples)
    }

    /// What a new request is made of.
    struct New {
        var kind: String
        var label: Int?
        var className: String?
        var seed: UInt64
        var scalars: [String: Double]
        var samples: [Int]
        var options: Options
        var retryOf: Int?
    }

    /// A new request, queued, with its samples frozen in this order; returns its id.
    ///
    /// Throws ``ClueError`` when there is no sample, one is not stored, stands twice, has another class, or is part of an unfinished
    /// request; then nothing is changed.
    func create(_ new: New) throws -> Int {
        guard !new.samples.isEmpty else { throw ClueError(.invalid, "a request needs at least one sample") }
        guard Set(new.samples).count == new.samples.count else {
            throw ClueError(.invalid, "a sample stands twice in the request: name each once")
        }
        return try database.transaction {
            let id = try database.insert(
                """
                INSERT INTO requests (kind, label, class, status, seed, scalars, options, samples, retry_of, created)
                VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)
                """,
                .text(new.kind), .optional(new.label), .optional(new.className), .integer(Int(new.seed)),
                .text(JSON.object(new.scalars.mapValues(JSON.double)).text), .text(JSON.object(new.options.row).text),
                .integer(new.samples.count), .optional(new.retryOf), .text(Clock.now()))
            try freeze(id, new.samples)
            try checkSamples(id, new.label)
            try samples.take(id)
            return id
        }
    }

    private func freeze(_ request: Int, _ chosen: [Int]) throws {
        for sample in chosen {
            let there = try database.rows("SELECT 1 FROM samples WHERE id = ?", .integer(sample))
            guard !there.isEmpty else { throw ClueError(.invalid, "no sample \(sample) is stored") }
        }
        let rows = chosen.enumerated().map { [.integer(request), .integer($0), .integer($1)] as [SQLValue] }
        try database.many("INSERT INTO request_samples VALUES (?, ?, ?)", rows)
    }

    private func checkSamples(_ request: Int, _ label: Int?) throws {
        let shared = try database.rows(
            """
            SELECT mine.sample_id, requests.id, status FROM request_samples AS mine
            JOIN request_samples AS others ON others.sample_id = mine.sample_id
            JOIN requests ON requests.id = others.request_id WHERE mine.request_id = ?
            AND others.request_id <> mine.request_id AND status IN \(Self.unfinished) LIMIT 1
            """, .integer(request))
        if let row = shared.first {
            throw ClueError(
                .invalid,
                "sample \(try row.int(0)) is part of request \(try row.int(1)), which is \(try row.text(2)): "
                    + "let that one end, or cancel it")
        }
        guard let label else { return }
        let other = try database.rows(
            """
            SELECT samples.id, label FROM request_samples JOIN samples ON samples.id = sample_id
            WHERE request_id = ? AND label <> ? LIMIT 1
            """, .integer(request), .integer(label))
        if let row = other.first {
            throw ClueError(
                .invalid,
                "sample \(try row.int(0)) has label \(try row.int(1)), the request is about label \(label)")
        }
    }

    /// One request. Throws ``ClueError`` when there is none of that id.
    func get(_ request: Int) throws -> Request {
        let rows = try database.rows(
            "SELECT \(Request.columns) FROM requests WHERE id = ?", .integer(request))
        if let row = rows.first { return try Request(row) }
        let last = try database.value("SELECT max(id) FROM requests")
        let known = if case .integer(let id) = last { "the latest is \(id)" } else { "there is none so far" }
        throw ClueError(.invalid, "no request \(request) is stored: \(known)")
    }

    /// Every request, oldest first.
    func all() throws -> [Request] {
        try database.rows("SELECT \(Request.columns) FROM requests ORDER BY id").map(Request.init)
    }

    /// The ids of a request's samples that are still there, in the order of their positions.
    func samples(of request: Int) throws -> [Int] {
        try database.rows(
            "SELECT sample_id FROM request_samples WHERE request_id = ? ORDER BY position", .integer(request)
        ).map { try $0.int(0) }
    }

    // MARK: states

    /// Changes the state and some columns. Throws ``ClueError`` of the kind `transition` where the picture of the states has no such
    /// arrow; then nothing is changed.
    func move(_ request: Int, to status: RequestStatus, _ columns: [(name: String, value: SQLValue)] = []) throws {
        let sets = columns.map { ", \($0.name) = ?" }.joined()
        let allowed = status.before.map { "'\($0.rawValue)'" }.joined(separator: ", ")
        try database.transaction {
            var changed = false
            let values = [.text(status.rawValue)] + columns.map(\.value) + [.integer(request)]
            try database.each(
                "UPDATE requests SET status = ?\(sets) WHERE id = ? AND status IN (\(allowed)) RETURNING id", values
            ) { _ in changed = true }
            if changed { return }
            let found = try get(request).status
            let may = RequestStatus.allCases.filter { $0.before.contains(found) }.map(\.rawValue)
            let after = may.isEmpty ? "that is final" : "it may become \(may.joined(separator: ", "))"
            throw ClueError(
                .transition,
                "request \(request) is \(found.rawValue) and cannot become \(status.rawValue): \(after)")
        }
    }

    /// Queued or paused to running.
    func begin(_ request: Int, baseGeneration: Int) throws {
        try database.transaction {
            let running = try database.rows("SELECT id FROM requests WHERE status IN ('running', 'verifying')")
            if let other = try running.first?.int(0), other != request {
                throw ClueError(.busy, "request \(other) is running: one runs at a time")
            }
            try move(request, to: .running, [("base_generation", .integer(baseGeneration)), ("reason", .null)])
            try database.execute(
                "UPDATE requests SET started = coalesce(started, ?) WHERE id = ?", .text(Clock.now()),
                .integer(request))
        }
    }

    /// Running or verifying to paused.
    func pause(_ request: Int, reason: String, evidence: JSONObject) throws {
        try move(
            request, to: .paused,
            [("reason", .text(reason)), ("evidence", .text(JSON.object(evidence).text))])
    }

    /// Queued or paused to cancelled; a running one ends where it runs.
    func cancel(_ request: Int) throws {
        try database.transaction {
            let status = try get(request).status
            guard status != .running, status != .verifying else {
                throw ClueError(.transition, "request \(request) is \(status.rawValue): it ends where it runs")
            }
            try move(request, to: .cancelled, [("finished", .text(Clock.now()))])
        }
    }

    /// Running or verifying to done, failed or cancelled, with the cost records.
    func finish(
        _ request: Int, as status: RequestStatus, reason: String?, evidence: JSONObject, records: [JSON]
    ) throws {
        precondition(status.isFinal, "a request does not end as \(status.rawValue)")
        try database.transaction {
            try move(
                request, to: status,
                [
                    ("reason", .optional(reason)), ("evidence", .text(JSON.object(evidence).text)),
                    ("finished", .text(Clock.now())),
                ])
            try database.many(
                "INSERT INTO records (request_id, phase, record) VALUES (?, ?, ?)",
                records.map { [.integer(request), .text($0["phase"]?.string ?? ""), .text($0.text)] })
        }
    }

    /// Asks the process that runs a request to cancel it; false when it does not run.
    func askCancel(_ request: Int) throws -> Bool {
        try database.transaction {
            try database.execute(
                "UPDATE requests SET reason = ? WHERE id = ? AND status IN ('running', 'verifying')",
                .text(Self.cancelAsked), .integer(request)) == 1
        }
    }

    /// Whether somebody asked that a running request be cancelled.
    func cancelWasAsked(_ request: Int) throws -> Bool {
        try !database.rows(
            "SELECT 1 FROM requests WHERE id = ? AND reason = ?", .integer(request), .text(Self.cancelAsked)
        ).isEmpty
    }

    /// Pauses what a process was running that is gone, and cancels what was to be cancelled; only who holds the lock knows that.
    func interrupted() throws {
        let running = "status IN ('running', 'verifying')"
        // A store on a full disk can still be read.
        guard try !database.rows("SELECT 1 FROM requests WHERE \(running)").isEmpty else { return }
        try database.transaction {
            try database.execute(
                "UPDATE requests SET status = 'cancelled', reason = NULL, finished = ? WHERE \(running) AND reason = ?",
                .text(Clock.now()), .text(Self.cancelAsked))
            try database.execute(
                "UPDATE requests SET status = 'paused', reason = ? WHERE \(running)", .text(Self.interruptedReason))
        }
    }

    /// Every cost record, oldest first.
    func records() throws -> [JSON] {
        try database.rows("SELECT record FROM records ORDER BY id").map { .object(try StoredJSON.object(try $0.text(0))) }
    }
}
