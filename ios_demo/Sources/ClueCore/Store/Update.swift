import Foundation

/// The bundle of a store: adopted when the store is made, compared at each open, replaced by an update. Needs the lock.
struct Update {
    let database: Database
    let bundle: ClueBundle
    let generations: Generations
    let requests: Requests
    let samples: Samples
    let policy: UpdatePolicy

    /// Whether the store is just being made, maybe by another process.
    func isNew() throws -> Bool {
        try database.rows("SELECT 1 FROM generations LIMIT 1").isEmpty
    }

    private var identity: [String: String] {
        [
            "name": bundle.name, "manifest_sha256": bundle.sha256, "weights_sha256": bundle.weights.sha256,
            "classes": Self.list(bundle.classes.map(JSON.string)), "input": Self.list(bundle.inputShape.map(JSON.int)),
        ]
    }

    /// A JSON array with the spaces that clue-pi writes, which compares the texts.
    private static func list(_ values: [JSON]) -> String { "[\(values.map(\.text).joined(separator: ", "))]" }

    private func stored() throws -> [String: String] {
        var found: [String: String] = [:]
        for row in try database.rows("SELECT key, value FROM bundle") { found[try row.text(0)] = try row.text(1) }
        return found
    }

    /// Whether these weights were adopted last. Throws ``ClueError`` for other classes or input.
    @discardableResult
    func check() throws -> Bool {
        let (stored, identity) = (try stored(), identity)
        for key in ["classes", "input"] where try !sameJSON(stored[key], identity[key]) {
            throw ClueError(
                .bundle,
                "the store \(database.folder.path) belongs to another bundle (\(stored["name"] ?? "not known")), "
                    + "whose \(key) differ: use another store")
        }
        return stored["weights_sha256"] == identity["weights_sha256"]
    }

    /// Another runtime may have written the same list with other spaces.
    private func sameJSON(_ one: String?, _ other: String?) throws -> Bool {
        guard let one, let other else { return false }
        return try StoredJSON.value(one) == StoredJSON.value(other)
    }

    /// Brings the store to this bundle.
    ///
    /// When its weights lack the effect of requests, `note` is called in the transaction with these and the SHA-256 of the weights
    /// that served before. Throws ``ClueError`` as the policy says, for a changed or erased weights file and for a full disk; then
    /// nothing is changed.
    func adopt(_ note: (_ lost: [Request], _ before: String) throws -> Void) throws {
        if try !isNew(), try check() {
            // The same weights in a bundle that was exported again.
            if try stored() != identity { try database.transaction { try writeIdentity() } }
            return
        }
        let lost = try generations.effective().map(requests.get)
        if !lost.isEmpty, policy == .refuse {
            throw ClueError(
                .broughtBack,
                "the weights of \(bundle.root.path) bring back what was forgotten (\(named(lost))): open it with the "
                    + "policy pending to forget it again, with serve to have it back, or keep the bundle before")
        }
        let again = policy == .pending ? try lost.map { ($0, try samplesOf($0)) } : []
        let before = lost.isEmpty ? "" : try generations.serving().sha256
        let digest = try copyWeights()
        do {
            try database.transaction {
                try generations.insert(request: nil, parent: nil, sha256: digest)
                try writeIdentity()
                for (request, samples) in again {
                    var options = request.options
                    options.broughtBack = true
                    _ = try requests.create(
                        .init(
                            kind: request.kind, label: request.label, className: request.className,
                            seed: request.seed, scalars: request.scalars, samples: samples, options: options,
                            retryOf: request.id))
                }
                if !lost.isEmpty { try note(lost, before) }
            }
        } catch {
            try? Files.erase(generations.path(try generations.nextID()))
            throw error
        }
    }

    private func writeIdentity() throws {
        try database.many(
            "INSERT OR REPLACE INTO bundle VALUES (?, ?)", identity.map { [.text($0.key), .text($0.value)] })
    }

    /// Copies the bundle's weights to the place of the next generation; returns their SHA-256.
    private func copyWeights() throws -> String {
        let source = try bundle.file(bundle.weights.file)
        if !Files.exists(source), Files.exists(ClueBundle.erasedMark(source)) {
            throw ClueError(
                .bundle, "the weights of \(bundle.root.path) were erased by sealing: copy the bundle again")
        }
        let path = generations.path(try generations.nextID())
        try Files.erase(path)
        let file = try RegularFile(source)
        let digest = try Files.write(path) { sink in
            var offset = 0
            while offset < file.size {
                let piece = try file.bytes(at: offset, count: min(1 << 20, file.size - offset))
                try piece.withUnsafeBytes(sink)
                offset += piece.count
            }
        }
        guard digest == bundle.weights.sha256 else {
            try Files.erase(path)
            throw ClueError(
                .bundle, "\(source.path) was changed: its SHA-256 is not the manifest's; copy the bundle again")
        }
        return digest
    }

    /// The samples of a request, or of its class when they were erased. Throws ``ClueError`` for none.
    private func samplesOf(_ request: Request) throws -> [Int] {
        let frozen = try requests.samples(of: request.id)
        if frozen.count == request.samples { return frozen }
        let found = try request.label.map(samples.ids) ?? []
        guard !found.isEmpty else {
            throw ClueError(
                .broughtBack,
                "\(request.about) (request \(request.id)) cannot be forgotten again, its samples are erased: add samples of "
                    + "the class with the bundle before, or choose the policy serve")
        }
        return found
    }

    private func named(_ lost: [Request]) -> String {
        var names: [String] = []
        for request in lost where !names.contains(request.about) { names.append(request.about) }
        return names.joined(separator: ", ")
    }
}
