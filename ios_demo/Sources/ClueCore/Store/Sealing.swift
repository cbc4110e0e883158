import Foundation

/// What sealing a request erases.
public struct SealPlan: Equatable, Sendable {
    public let request: Int
    /// Samples of the request that are still there.
    public let samples: Int
    /// How many more of its class stay.
    public let classSamples: Int
    /// Other requests, which lose samples that they share with it.
    public let later: [Int]
    /// Generations, checkpoints and the bundle's weights.
    public let files: [String]
    /// Bytes of these files.
    public let bytes: Int
    public let notErased: [NotErased]
}

/// What is still on the device, and why.
public struct NotErased: Equatable, Sendable {
    public let path: String
    public let reason: String
}

/// The steps that make the effect of a request final: samples, keys, and the weights from before it are erased.
///
/// All of them need the lock. Every step can be done again, so an interrupted sealing is carried on from its start.
struct Sealing {
    let database: Database
    let bundle: ClueBundle
    let generations: Generations
    let requests: Requests
    let samples: Samples
    /// Removes the files that no row names.
    let removeUnnamed: () throws -> Void

    /// The steps as they are told, each before it is carried out.
    enum Step: String, CaseIterable, Sendable {
        case rows = "erasing samples and keys"
        case files = "erasing weights and checkpoints"
        case database = "clearing the database and its log"
    }

    private static let sharing = """
        SELECT DISTINCT others.request_id FROM request_samples AS mine JOIN request_samples AS others
        ON others.sample_id = mine.sample_id WHERE mine.request_id = ? AND others.request_id <> ?
        """

    /// The request. Throws ``ClueError`` when it cannot be sealed.
    @discardableResult
    func check(_ id: Int) throws -> Request {
        let request = try requests.get(id)
        guard request.status == .done else {
            throw ClueError(
                .transition, "request \(id) is \(request.status.rawValue): only one that is done can be sealed")
        }
        if let when = request.sealed {
            throw ClueError(.transition, "request \(id) was sealed already (\(when))")
        }
        guard request.rolledBack == nil else {
            throw ClueError(
                .transition, "request \(id) has no effect on the serving weights: a rollback or an update took it")
        }
        let shared = try database.rows(
            """
            SELECT id, status FROM requests WHERE status IN \(Requests.unfinished) AND id IN (\(Self.sharing)) LIMIT 1
            """, .integer(id), .integer(id))
        if let row = shared.first {
            throw ClueError(
                .transition,
                "request \(try row.int(0)), which is \(try row.text(1)), has samples of request \(id): let it end, or cancel it")
        }
        return request
    }

    /// What sealing would erase. Throws ``ClueError`` when the request cannot be sealed.
    func plan(_ id: Int) throws -> SealPlan {
        let request = try check(id)
        let kept = try kept(id)
        let doomed = try generations.all().filter { !kept.contains($0.id) }
        var found = doomed.filter { $0.erased == nil }.map(\.file)
        let others = try database.rows(
            """
            SELECT id FROM requests WHERE status IN \(Requests.unfinished)
            AND base_generation IN (SELECT value FROM json_each(?))
            """, .text(Self.list(doomed.map(\.id))))
        for row in others {
            let path = Checkpoint.path(of: try row.int(0), in: database.folder)
            if Files.exists(path) { found.append(path) }
        }
        let (weights, refusal) = (try weights(), try refusal())
        if Files.exists(weights), refusal == nil { found.append(weights) }
        var stays = 0
        if let label = request.label {
            let row = try database.rows(
                """
                SELECT count(*) FROM samples WHERE label = ? AND id NOT IN
                (SELECT sample_id FROM request_samples WHERE request_id = ?)
                """, .integer(label), .integer(id))
            stays = try row.first?.int(0) ?? 0
        }
        let sizes = found.map { (try? RegularFile($0).size) ?? 0 }
        return SealPlan(
            request: id, samples: try samplesLeft(id), classSamples: stays,
            later: try database.rows(Self.sharing, .integer(id), .integer(id)).map { try $0.int(0) },
            files: found.map(\.path), bytes: sizes.reduce(0, +),
            notErased: refusal.map { [NotErased(path: weights.path, reason: $0)] } ?? [])
    }

    /// Notes that a request is being sealed: from here on it is carried on.
    func begin(_ id: Int) throws {
        try check(id)
        try database.execute(
            "UPDATE requests SET seal_began = coalesce(seal_began, ?) WHERE id = ?", .text(Clock.now()), .integer(id))
    }

    /// The requests whose sealing was interrupted.
    func begun() throws -> [Int] {
        try database.rows("SELECT id FROM requests WHERE seal_began NOTNULL AND sealed IS NULL").map { try $0.int(0) }
    }

    /// Carries out every step, each told first; returns what was not erased.
    ///
    /// `issue` is called in the last transaction with what was erased and what was not. Throws ``ClueError`` when a step fails (disk
    /// full, another process reads the database); then it can be carried on.
    func carryOn(
        _ id: Int, tell: (Step) -> Void,
        issue: (_ request: Request, _ erased: [String], _ notErased: [NotErased]) throws -> Void
    ) throws -> [NotErased] {
        tell(.rows)
        try eraseRows(id)
        tell(.files)
        try removeUnnamed()
        let notErased = try eraseBundle()
        tell(.database)
        try vacuum()
        let request = try requests.get(id)
        try database.transaction {
            try database.execute("UPDATE requests SET sealed = ? WHERE id = ?", .text(Clock.now()), .integer(id))
            try issue(request, try erased(request), notErased)
        }
        return notErased
    }

    // MARK: steps

    private func weights() throws -> URL { try bundle.file(bundle.weights.file) }

    private func kept(_ id: Int) throws -> Set<Int> { try generations.family(try generations.of(id)) }

    private func samplesLeft(_ id: Int) throws -> Int { try requests.samples(of: id).count }

    private static func list(_ numbers: [Int]) -> String { JSON.array(numbers.sorted().map(JSON.int)).text }

    /// Samples, keys and file names, in one transaction; files that are named no longer go afterwards.
    private func eraseRows(_ id: Int) throws {
        let kept = Self.list(Array(try kept(id)))
        try database.transaction {
            try database.execute(
                """
                UPDATE generations SET file = NULL, erased = ?, erased_for = ? WHERE file NOTNULL
                AND id NOT IN (SELECT value FROM json_each(?))
                """, .text(Clock.now()), .integer(id), .text(kept))
            guard try samplesLeft(id) > 0 else { return }
            try database.execute("PRAGMA defer_foreign_keys = ON")
            let mine = "IN (SELECT sample_id FROM request_samples WHERE request_id = ?)"
            for statement in [
                "DELETE FROM pixels WHERE sample_id \(mine)", "DELETE FROM samples WHERE id \(mine)",
                "DELETE FROM request_samples WHERE sample_id \(mine)",
            ] {
                try database.execute(statement, .integer(id))
            }
            try samples.renewKeys()
        }
    }

    /// Why the bundle's weights cannot be erased.
    private func refusal() throws -> String? {
        let weights = try weights()
        guard Files.exists(weights) else { return nil }
        for path in [weights, weights.deletingLastPathComponent()] where access(path.path, W_OK) != 0 {
            return "\(path.lastPathComponent) is not writable"
        }
        return nil
    }

    /// Erases the bundle's weights; an empty file tells later opens that this is why they are missing.
    private func eraseBundle() throws -> [NotErased] {
        let weights = try weights()
        let mark = ClueBundle.erasedMark(weights)
        if Files.exists(weights) {
            // Under the other name first: a bundle whose weights are half overwritten could not be opened.
            guard rename(weights.path, mark.path) == 0, Files.sync(mark.deletingLastPathComponent()) else {
                return [NotErased(path: weights.path, reason: ClueError.words(of: errno))]
            }
        }
        do {
            if Files.exists(mark), try RegularFile(mark).size > 0 { try Files.hollow(mark) }
        } catch let error as ClueError {
            return [NotErased(path: weights.path, reason: error.message)]
        }
        return []
    }

    /// No page and no log keeps anything that was deleted.
    private func vacuum() throws {
        for statement in ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            if let row = try database.rows(statement).first, row[0] != .integer(0) {
                throw ClueError(
                    .busy, "somebody else reads \(database.folder.path): seal again when that has ended")
            }
        }
    }

    private func erased(_ request: Request) throws -> [String] {
        let rows = try database.rows("SELECT id FROM generations WHERE erased_for = ?", .integer(request.id))
        var erased = ["\(request.samples) samples and their keys"]
        erased += try rows.map { "weights of generation \(try $0.int(0))" }
        let weights = try weights()
        if Files.exists(ClueBundle.erasedMark(weights)), !Files.exists(weights) { erased.append("weights of the bundle") }
        return erased
    }
}
