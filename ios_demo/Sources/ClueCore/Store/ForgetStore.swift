import Foundation

/// The store in a folder for one bundle: samples, requests, generations of weights, receipts, cost records.
///
/// Made when it is not there. One thread at a time uses an object; several objects, in one process or in many, may be open on the same
/// folder, which is how an app reads while a request runs. Apps use ``Unlearner``, which has one for itself. Functions throw
/// ``ClueError``; what they were to change is then unchanged.
public final class ForgetStore {
    static let folders = ["generations", "keys", "checkpoints", "receipts"]
    /// How long a look at the store waits for the lock, in seconds: opening a store holds it for a moment.
    static let patience = 1.0

    /// A moment in the life of a store after which a process may die; tests let it die there.
    enum Moment: Equatable, Sendable {
        case finishing, finished
        case sealing(Sealing.Step)
    }

    /// The folder.
    public let folder: URL
    let bundle: ClueBundle
    let issuer: Issuer
    let database: Database
    let lock: StoreLock
    let keys: Keys
    let samples: Samples
    let requestRows: Requests
    let generationRows: Generations
    let receiptRows: ReceiptRows
    private let policy: UpdatePolicy
    /// Told of each moment before it passes.
    var observer: (Moment) -> Void = { _ in }

    /// Opens the store, or makes it.
    ///
    /// `policy` says what happens when the bundle's weights bring back what was forgotten, `signers` has the key of the receipts. Throws
    /// when the store belongs to other classes, was made by a newer runtime, is not private, or cannot be read.
    public init(
        folder: URL, bundle: ClueBundle, policy: UpdatePolicy = .refuse, signers: any SignerSource
    ) throws {
        (self.folder, self.bundle, self.policy) = (folder, bundle, policy)
        try Self.prepare(folder, bundle)
        issuer = Issuer(folder: folder, bundle: bundle, signers: signers)
        database = try Database(folder: folder)
        lock = StoreLock(folder: folder)
        keys = Keys(database)
        samples = Samples(database, keys)
        requestRows = Requests(database, samples)
        generationRows = Generations(database)
        receiptRows = ReceiptRows(database)
        try open()
    }

    /// Closes the database; nothing else may be called afterwards.
    public func close() { database.close() }

    /// Makes the folders. Refuses one in the bundle, or with other files: a store is private and erasable.
    private static func prepare(_ folder: URL, _ bundle: ClueBundle) throws {
        let (place, root) = (
            folder.standardizedFileURL.resolvingSymlinksInPath().path,
            bundle.root.standardizedFileURL.resolvingSymlinksInPath().path
        )
        guard place != root, !place.hasPrefix(root + "/") else {
            throw ClueError(.invalid, "the store \(folder.path) lies in the bundle, which is only read: choose another folder")
        }
        let inside = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        if !inside.contains("store.db"), inside.contains(where: { isOther($0, in: folder) }) {
            throw ClueError(
                .invalid, "\(folder.path) holds other files and is no store: choose an empty or a new folder")
        }
        try Privacy.check(folder)
        do {
            try FileManager.default.createDirectory(
                at: folder.deletingLastPathComponent(), withIntermediateDirectories: true)
        } catch {
            throw ClueError(.storage, "cannot use the store \(folder.path): \(error.localizedDescription)")
        }
        try Privacy.makeFolder(folder)
        for name in folders { try Privacy.makeFolder(folder.appendingPathComponent(name), inStore: true) }
    }

    /// Whether a name in the folder is none of what a process leaves that died while it made a store.
    private static func isOther(_ name: String, in folder: URL) -> Bool {
        let path = folder.appendingPathComponent(name).path
        guard folders.contains(name), let inside = try? FileManager.default.contentsOfDirectory(atPath: path) else {
            return true
        }
        return !inside.isEmpty
    }

    private var sealing: Sealing {
        Sealing(
            database: database, bundle: bundle, generations: generationRows, requests: requestRows, samples: samples,
            removeUnnamed: removeUnnamed)
    }

    private func open() throws {
        try Migration.prepare(database, lock, samples, keys)
        let update = Update(
            database: database, bundle: bundle, generations: generationRows, requests: requestRows, samples: samples,
            policy: policy)
        // Who runs a request keeps the lock: then there is nothing to recover, and no other weights to adopt.
        do {
            try exclusive(wait: try update.isNew() ? 10 : 0) {
                try update.adopt(adopted)
                // What fails here (a full disk, a reader) is tried again at the next open, or by `seal`.
                for request in try sealing.begun() { _ = try? carryOnSealing(request) }
            }
        } catch let error as ClueError where error.kind == .busy {
            guard try update.check() else { throw error }
        }
        try update.check()
    }

    private func adopted(_ lost: [Request], _ before: String) throws {
        let names = Set(lost.compactMap(\.className))
        let make = try issuer.adopt(
            before: before, after: try serving().sha256, policy: policy, classes: Array(names))
        try receiptRows.add(kind: "adopt", request: nil, make)
    }

    // MARK: the lock

    /// Holds the lock for running, sealing or rolling back; the system frees it when the process dies.
    ///
    /// Once it is held, a request that a dead process ran is paused and the files that it left are removed. Throws ``ClueError`` of the
    /// kind `busy` when another holds it for `wait` seconds.
    func exclusive<Result>(wait: Double = patience, _ body: () throws -> Result) throws -> Result {
        try lock.hold(wait: wait, gained: recover, body)
    }

    private func recover() throws {
        try requestRows.interrupted()
        // On a full disk the store can still be read; the next lock does it again.
        do {
            try removeUnnamed()
            try receiptRows.writeFiles()
        } catch is ClueError {}
    }

    /// Removes what no row names: files half written, given up, or erased; needs the lock.
    private func removeUnnamed() throws {
        try database.settle()
        try keys.destroyMarked()
        try generationRows.removeUnnamed()
        // A checkpoint that goes on from erased weights holds what is left of them.
        let live = try database.rows(
            """
            SELECT id FROM requests WHERE status IN \(Requests.unfinished) AND NOT EXISTS
            (SELECT 1 FROM generations WHERE id = base_generation AND erased NOTNULL)
            """)
        let kept = Set(try live.map { checkpointPath(try $0.int(0)).lastPathComponent })
        let checkpoints = folder.appendingPathComponent("checkpoints")
        for name in try Files.names(in: checkpoints) where !kept.contains(name) {
            try Files.erase(checkpoints.appendingPathComponent(name))
        }
        for place in [folder, folder.appendingPathComponent("receipts")] {
            for name in try Files.names(in: place) where name.hasSuffix(".part") {
                try Files.erase(place.appendingPathComponent(name))
            }
        }
    }

    // MARK: samples

    /// Stores images at the model's input size; returns the ids of those that were not there with this label.
    public func add(_ images: Images, label: Int) throws -> [Int] {
        let shape = [images.channels, images.height, images.width]
        guard shape == bundle.inputShape else {
            let (found, wanted) = (shape.map(String.init), bundle.inputShape.map(String.init))
            throw ClueError(
                .invalid,
                "images are \(found.joined(separator: " x ")) (channels, height, width): they must be \(wanted.joined(separator: " x "))")
        }
        return try samples.add(images, label: label)
    }

    /// How many samples each label has; labels without any are left out.
    public func sampleCounts() throws -> [Int: Int] { try samples.counts() }

    /// The ids of a class's samples, oldest first.
    public func sampleIDs(label: Int) throws -> [Int] { try samples.ids(label) }

    /// The samples of a label, or all, oldest first.
    public func listed(label: Int? = nil) throws -> [Sample] { try samples.listed(label) }

    /// The frozen samples of a request in the order of their positions.
    func labelled(of request: Int) throws -> Labelled {
        let shape = bundle.inputShape
        return try samples.labelled(of: request, height: shape[1], width: shape[2], channels: shape[0])
    }

    // MARK: requests

    /// Every request, oldest first.
    public func requests() throws -> [Request] { try requestRows.all() }

    /// One request. Throws when there is none of that id.
    public func request(_ id: Int) throws -> Request { try requestRows.get(id) }

    /// The state of a request; one whose process died is paused.
    public func status(_ id: Int) throws -> RequestStatus {
        if [.running, .verifying].contains(try request(id).status) {
            // Who gets the lock pauses what nobody runs any longer.
            do { try exclusive(wait: 0) {} } catch let error as ClueError where error.kind == .busy {}
        }
        return try request(id).status
    }

    /// Every cost record, oldest first.
    public func records() throws -> [JSON] { try requestRows.records() }

    func checkpointPath(_ request: Int) -> URL { Checkpoint.path(of: request, in: folder) }

    /// Queued or paused to cancelled; its checkpoint is removed.
    func cancelWaiting(_ id: Int) throws {
        try requestRows.cancel(id)
        try Files.erase(checkpointPath(id))
    }

    /// How a request ends.
    struct Ending {
        var status: RequestStatus
        var reason: String?
        var evidence: JSONObject
        var records: [JSON]
        /// Of the new weights, which serve from then on.
        var newWeights: String?
        var receipt: MakeReceipt?
    }

    /// Ends a request in one transaction. Throws when it began with other weights than those that serve; then nothing is changed.
    func finish(_ id: Int, _ ending: Ending) throws {
        observer(.finishing)
        try database.transaction {
            try requestRows.finish(
                id, as: ending.status, reason: ending.reason, evidence: ending.evidence, records: ending.records)
            if let digest = ending.newWeights {
                let (base, serving) = (try request(id).baseGeneration, try serving().id)
                guard base == serving else {
                    throw ClueError(
                        .transition,
                        "request \(id) began with generation \(base ?? 0), now \(serving) serves: retry it")
                }
                try generationRows.insert(request: id, parent: base, sha256: digest)
            }
            if let receipt = ending.receipt { try receiptRows.add(kind: "forget", request: id, receipt) }
        }
        observer(.finished)
        // The request has ended: that these fail is no reason to say otherwise. The next lock does them again.
        try? receiptRows.writeFiles()
        try? Files.erase(checkpointPath(id))
    }

    // MARK: generations

    /// Every generation, oldest first.
    public func generations() throws -> [Generation] { try generationRows.all() }

    /// The generation that serves now.
    public func serving() throws -> Generation { try generationRows.serving() }

    /// The labels that are forgotten by the serving weights, or are to be again after an update.
    public func forgotten() throws -> [Int] {
        let effective = JSON.array(try generationRows.effective().map(JSON.int)).text
        return try database.rows(
            """
            SELECT label FROM requests WHERE label NOTNULL AND (id IN (SELECT value FROM json_each(?))
            OR json_extract(options, '$.brought_back') AND status NOT IN ('done', 'cancelled'))
            GROUP BY label ORDER BY min(id)
            """, .text(effective)
        ).map { try $0.int(0) }
    }

    /// Lets a kept generation serve; returns the requests that lost their effect by it. Nothing is erased.
    ///
    /// Throws when there is none of that id, it was erased, or it serves already.
    public func rollback(to generation: Int) throws -> [Int] {
        try exclusive {
            let (target, before) = (try generationRows.get(generation), try serving())
            guard target.erased == nil else {
                throw ClueError(
                    .transition, "generation \(generation) was erased by sealing: it cannot serve again")
            }
            guard !target.serving else { throw ClueError(.transition, "generation \(generation) serves already") }
            guard try RegularFile.sha256(target.file) == target.sha256 else {
                throw ClueError(
                    .storage, "weights \(target.file.path) were changed: their SHA-256 is not the recorded one")
            }
            let (effective, forgotten) = (try generationRows.effective(), try forgotten())
            let lost = try database.transaction {
                try generationRows.serve(generation)
                let left = try generationRows.effective()
                let lost = effective.filter { !left.contains($0) }
                let still = try self.forgotten()
                let make = try issuer.rollback(
                    before: before.sha256, after: target.sha256, requests: lost,
                    classes: forgotten.filter { !still.contains($0) }.map { bundle.classes[$0] })
                try receiptRows.add(kind: "rollback", request: nil, make)
                return lost
            }
            try? receiptRows.writeFiles()
            return lost
        }
    }

    /// What `seal` would erase and what it could not. Throws as `seal` does.
    public func sealPlan(_ request: Int) throws -> SealPlan { try sealing.plan(request) }

    /// Makes a request's effect final: erases its samples and keys, the weights before it, the bundle's own; returns what could not be.
    ///
    /// Throws when the request is not done, has no effect, was sealed, or an unfinished request has its samples; and when a step fails:
    /// the rest is then done by the next open, or by calling it again.
    @discardableResult
    public func seal(_ request: Int) throws -> [NotErased] {
        try exclusive {
            try sealing.begin(request)
            return try carryOnSealing(request)
        }
    }

    private func carryOnSealing(_ id: Int) throws -> [NotErased] {
        let issue = { (request: Request, erased: [String], notErased: [NotErased]) in
            let make = try self.issuer.seal(request, serving: try self.serving().sha256, erased: erased, notErased: notErased)
            try self.receiptRows.add(kind: "seal", request: id, make)
        }
        let notErased = try sealing.carryOn(id, tell: { observer(.sealing($0)) }, issue: issue)
        try? receiptRows.writeFiles()
        return notErased
    }

    // MARK: receipts

    /// Every receipt, oldest first.
    public func receipts() throws -> [Receipt] { try receiptRows.all().map(Receipt.init(text:)) }
}
