import Foundation

/// Where a request is, as one safetensors file: written after each epoch, read when a request goes on.
struct Checkpoint {
    private static let format = "1"
    private static let unsigned = String(repeating: "0", count: 64)

    /// What a checkpoint belongs to: only with all of it the same is going on bit-identical to never stopping.
    struct Identity: Equatable {
        let request: Int
        let seed: UInt64
        /// SHA-256 of the manifest.
        let manifest: String
        /// SHA-256 of the weights that the request began with.
        let base: String
        let engine: String
        let version: String
        let threads: Int
    }

    let identity: Identity
    /// The number of the next operation.
    let cursor: Int
    /// The content of every value of the bundle (a cache [N, ...]).
    let values: [String: FloatArray]
    let evidence: JSONObject
    let cost: JSON

    static func path(of request: Int, in store: URL) -> URL {
        store.appendingPathComponent("checkpoints").appendingPathComponent("\(sixDigits(request)).safetensors")
    }

    // MARK: writing

    /// Writes it in place of an older one, which stays whole until the new one is on the disk.
    ///
    /// Throws ``ClueError`` when the disk fails, or a value whose storage is bits has others than 0 and 1.
    func write(to path: URL, bundle: ClueBundle) throws {
        let names = values.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        let storages = Dictionary(uniqueKeysWithValues: bundle.values.map { ($0.name, $0.storage) })
        func each(_ sink: Files.Sink) throws {
            for name in names {
                guard let array = values[name] else { continue }
                if storages[name] == "bits" {
                    try Self.packed(array, name).withUnsafeBytes(sink)
                } else {
                    try sink(UnsafeRawBufferPointer(array.bytes))
                }
            }
        }
        let entries = values.map { name, array in
            let size = (array.count + 7) / 8
            let entry = storages[name] == "bits" ? ("U8", [size], size) : ("F32", array.shape, array.bytes.count)
            return (name, (dtype: entry.0, shape: entry.1, bytes: entry.2))
        }
        let arrays = Dictionary(uniqueKeysWithValues: entries)
        var digest = Sha256()
        digest.update(header(arrays, Self.unsigned))
        try each { digest.update($0) }
        let signed = header(arrays, digest.digest.hex)
        try Files.write(path, replace: true) { sink in
            try signed.withUnsafeBytes(sink)
            try each(sink)
        }
    }

    private func header(_ arrays: [String: (dtype: String, shape: [Int], bytes: Int)], _ sha256: String) -> [UInt8] {
        Safetensors.header(
            arrays: arrays,
            metadata: [
                "format": Self.format, "request_id": String(identity.request), "cursor": String(cursor),
                "seed": String(identity.seed), "manifest_sha256": identity.manifest, "base_sha256": identity.base,
                "engine": identity.engine, "version": identity.version, "threads": String(identity.threads),
                "evidence": JSON.object(evidence).text, "cost": cost.text, "sha256": sha256,
            ])
    }

    private static func packed(_ array: FloatArray, _ name: String) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: (array.count + 7) / 8)
        for index in 0..<array.count {
            let element = array.pointer[index]
            guard element == 0 || element == 1 else {
                throw ClueError(
                    .bundle, "value \(name) is stored as bits but has others than 0 and 1: export the bundle again")
            }
            if element == 1 { bytes[index / 8] |= 1 << UInt8(index % 8) }
        }
        return bytes
    }

    // MARK: reading

    /// The checkpoint of a request whose plan has `samples`; nil when there is none.
    ///
    /// A damaged one (cut off, changed, of another version, not of these values) is removed: nil too. Throws ``ClueError`` when the file
    /// is there and cannot be read.
    static func read(_ path: URL, bundle: ClueBundle, samples: Int) throws -> Checkpoint? {
        guard Files.exists(path) else { return nil }
        return try read(try RegularFile(path), bundle: bundle, samples: samples)
    }

    /// The same for an opened file.
    static func read(_ file: RegularFile, bundle: ClueBundle, samples: Int) throws -> Checkpoint? {
        do {
            return try parse(file, bundle, samples)
        } catch is Damaged, is StrictJSON.Problem {
        } catch let error as ClueError where error.kind == .bundle {
            // an array of another type or size; what else is thrown goes on: a file that cannot be read now may be whole
        }
        try Files.erase(file.url)
        return nil
    }

    /// The file is no checkpoint.
    private struct Damaged: Error {}

    private static func parse(_ file: RegularFile, _ bundle: ClueBundle, _ samples: Int) throws -> Checkpoint {
        let weights = WeightsFile(file, header: try Safetensors(parsing: file))
        let metadata = weights.metadata
        func text(_ name: String) throws -> String {
            guard let text = metadata[name] else { throw Damaged() }
            return text
        }
        func number<Number: FixedWidthInteger>(_ name: String) throws -> Number {
            guard let number = Number(try text(name)) else { throw Damaged() }
            return number
        }
        guard try text("format") == format, try text("sha256") == digest(of: file, signedAs: text("sha256")),
            weights.keys == bundle.values.map(\.name).sorted()
        else { throw Damaged() }
        var values: [String: FloatArray] = [:]
        for value in bundle.values {
            let array = FloatArray(shape: value.role == "cache" ? [samples] + value.shape : value.shape)
            if value.storage == "bits" {
                try unpack(try weights.bytes(value.name, dtype: "U8"), into: array)
            } else {
                guard weights.shape(value.name) == array.shape else { throw Damaged() }
                try weights.read(value.name, into: array)
            }
            values[value.name] = array
        }
        let identity = Identity(
            request: try number("request_id"), seed: try number("seed"), manifest: try text("manifest_sha256"),
            base: try text("base_sha256"), engine: try text("engine"), version: try text("version"),
            threads: try number("threads"))
        guard let evidence = try? StoredJSON.object(try text("evidence")), let cost = try? StoredJSON.value(try text("cost"))
        else { throw Damaged() }
        return Checkpoint(identity: identity, cursor: try number("cursor"), values: values, evidence: evidence, cost: cost)
    }

    private static func unpack(_ bytes: [UInt8], into array: FloatArray) throws {
        guard bytes.count == (array.count + 7) / 8 else { throw Damaged() }
        for index in 0..<array.count { array.pointer[index] = Float(bytes[index / 8] >> UInt8(index % 8) & 1) }
    }

    /// The hash of the whole file with 64 zeros in the place of the hash.
    private static func digest(of file: RegularFile, signedAs sha256: String) throws -> String {
        let length = Int(try file.bytes(at: 0, count: 8).reversed().reduce(0) { $0 << 8 | UInt64($1) })
        let header = Data(try file.bytes(at: 0, count: 8 + length))
        let signed = Data("\"sha256\":\"\(sha256)\"".utf8)
        guard let place = header.range(of: signed), header.range(of: signed, in: place.upperBound..<header.endIndex) == nil
        else { throw Damaged() }
        var blank = header
        blank.replaceSubrange(place, with: Data("\"sha256\":\"\(unsigned)\"".utf8))
        var digest = Sha256()
        digest.update(blank)
        var offset = 8 + length
        while offset < file.size {
            let piece = try file.bytes(at: offset, count: min(1 << 20, file.size - offset))
            piece.withUnsafeBytes { digest.update($0) }
            offset += piece.count
        }
        return digest.digest.hex
    }

    // MARK: going on

    /// Throws ``ClueError``, naming both, where it was made by what would not go on bit-identically.
    func check(against here: Identity) throws {
        let found = identity
        let request = "request \(here.request)"
        let wayOut = "or cancel it and retry it, which starts it anew"
        if (found.engine, found.version) != (here.engine, here.version) {
            throw ClueError(
                .engine,
                "\(request) was begun with \(found.engine) \(found.version) and this is \(here.engine) \(here.version): go on with "
                    + "the engine that began it, \(wayOut)")
        }
        if found.threads != here.threads {
            throw ClueError(
                .engine,
                "\(request) was begun with \(found.threads) threads and this has \(here.threads): use \(found.threads) threads, \(wayOut)")
        }
        for (what, one, other) in [
            ("bundle", found.manifest, here.manifest), ("base weights", found.base, here.base),
        ] where one != other {
            throw ClueError(
                .bundle,
                "\(request) was begun with the \(what) \(one.prefix(12)) and now there are \(other.prefix(12)): go on with those that "
                    + "it began with, \(wayOut)")
        }
        if (found.request, found.seed) != (here.request, here.seed) {
            throw ClueError(
                .storage,
                "the checkpoint of \(request) is of request \(found.request) with seed \(found.seed), not of seed \(here.seed): "
                    + "cancel it and retry it, which starts it anew")
        }
    }
}
