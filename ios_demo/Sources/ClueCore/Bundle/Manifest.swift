import Foundation

/// The manifest of a bundle as checked JSON: signature, hash, one meaning, the schema; in this order.
struct Manifest {
    /// 1 where a plan has no variants to run instead.
    static let newestVersion = 2
    private static let maxBytes = 16 << 20
    /// Shown, but never used as names: these may have lines.
    private static let texts = ["license", "notices"]

    let json: JSON
    /// The keys of an object at the top level, in the order of the text.
    let order: [String: [String]]
    let sha256: String

    /// Nothing is parsed before the signature was found good, where keys are trusted.
    /// - Throws: `ClueError` for anything that is not as export writes it.
    init(root: URL, trusted: TrustedKeys?) throws {
        let place = root.appendingPathComponent("manifest.json")
        guard let type = try? FileManager.default.attributesOfItem(atPath: place.path)[.type] as? FileAttributeType,
            type == .typeRegular
        else { throw ClueError(.bundle, "\(root.path) is no bundle: it has no manifest.json") }
        let content = try RegularFile.small(place, most: Self.maxBytes)
        try trusted?.check(content, of: root)
        sha256 = Sha256.hex(content)
        let recorded = try RegularFile.small(root.appendingPathComponent("manifest.sha256"), most: 4096)
        guard
            recorded.split(whereSeparator: { [0x20, 0x09, 0x0A, 0x0D].contains($0) }).first.map(Array.init)
                == Array(sha256.utf8)
        else {
            throw ClueError(
                .bundle, "bundle \(root.path): manifest.json does not match manifest.sha256; copy the bundle again")
        }
        do {
            (json, order) = try StrictJSON.read(content, maxBytes: Self.maxBytes)
        } catch {
            throw ClueError(
                .bundle, "bundle \(root.path): manifest.json is not valid JSON (\(error)); export it again")
        }
        try checkVersion(root)
        try Self.checkSchema(root, json)
        for (name, part) in json.object ?? [:] where !Self.texts.contains(name) {
            // Names are printed and become names of folders.
            if part.strings.contains(where: StrictJSON.hasControl) {
                throw ClueError(
                    .bundle, "bundle \(root.path): manifest.json, \(name): a text has control characters")
            }
        }
    }

    private func checkVersion(_ root: URL) throws {
        if let version = json["schema_version"]?.int, version > Self.newestVersion {
            throw ClueError(
                .bundle,
                "bundle \(root.path) was made by a newer clue-mobile (manifest version \(version), this runtime "
                    + "reads \(Self.newestVersion)): update the app")
        }
    }

    private static func checkSchema(_ root: URL, _ json: JSON) throws {
        do {
            try JSONSchema.shipped("manifest.schema.json").check(json)
        } catch let problem as JSONSchema.Problem {
            let place = problem.place.isEmpty ? "top level" : problem.place.joined(separator: "/").prefix(200)
            throw ClueError(
                .bundle,
                "bundle \(root.path): manifest.json, \(place): \(problem.text.prefix(200)); export it again")
        }
    }
}
