import Foundation

extension ClueBundle {
    private static let maxPath = 255

    /// Read and check a bundle folder.
    ///
    /// With `verify`, every file's SHA-256 is checked; its presence and size always are. With `trusted` keys the
    /// manifest must be signed by one of them, and nothing of it is parsed before.
    /// - Throws: `ClueError` naming the file or the place in the manifest that is wrong.
    public static func open(
        _ folder: URL, verify: Bool = true, trusted: TrustedKeys? = nil
    ) throws -> ClueBundle {
        let manifest = try Manifest(root: folder, trusted: trusted)
        let bundle = try ClueBundle(root: folder, manifest: manifest)
        for entry in bundle.files.values.sorted(by: { $0.file < $1.file }) {
            try bundle.check(entry, verify: verify)
        }
        try References(bundle: bundle, manifest: manifest.json).check()
        return bundle
    }

    /// The path of a listed file, or of a folder of listed files.
    /// - Throws: `ClueError` when it is not listed, is or lies behind a link, or leads out of the folder.
    public func file(_ name: String) throws -> URL {
        if files[name] == nil, inside(name).isEmpty { throw wrong("\(name) is used but not in the list of files") }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard name.utf8.count <= Self.maxPath, !parts.contains(where: { ["", ".", ".."].contains($0) }) else {
            throw wrong("\(name.prefix(Self.maxPath)) is no plain path inside the bundle")
        }
        var path = root
        for part in parts {
            path.appendPathComponent(String(part))
            // Where a link leads can be changed after it was checked.
            if (try? FileManager.default.destinationOfSymbolicLink(atPath: path.path)) != nil {
                throw wrong("\(name): \(part) is a link, and a bundle has none")
            }
        }
        return path
    }

    /// The listed hash of a file; of a folder, that of the lines "SHA256  PATH" of its files, sorted.
    func sha256(of name: String) -> String {
        if let entry = files[name] { return entry.sha256 }
        return Sha256.hex(inside(name).map { "\($0.sha256)  \($0.file)\n" }.joined().utf8)
    }

    private func inside(_ folder: String) -> [FileEntry] {
        files.values.filter { $0.file.hasPrefix("\(folder)/") }.sorted { $0.file < $1.file }
    }

    /// The empty file that stands in place of the bundle's weights once sealing has erased them.
    public static func erasedMark(_ weights: URL) -> URL {
        weights.deletingLastPathComponent().appendingPathComponent(weights.lastPathComponent + ".erased")
    }

    /// What an app is built from: who has built it may leave the folder out.
    private static let runtime = "runtime"

    private func check(_ entry: FileEntry, verify: Bool) throws {
        if entry.file.hasPrefix("\(Self.runtime)/"),
            !FileManager.default.fileExists(atPath: root.appendingPathComponent(Self.runtime).path)
        {
            return
        }
        func wrong(_ problem: String) -> ClueError {
            ClueError(.bundle, "bundle \(root.path): \(entry.file) \(problem); copy the bundle again")
        }
        let path = try file(entry.file)
        let there = FileManager.default.fileExists(atPath: path.path)
        if !there, entry.file == weights.file,
            FileManager.default.fileExists(atPath: Self.erasedMark(path).path)
        {
            return
        }
        guard there else { throw wrong("is missing") }
        let size = try RegularFile(path).size
        guard size == entry.bytes else { throw wrong("has \(size) bytes instead of \(entry.bytes)") }
        if verify, try RegularFile.sha256(path) != entry.sha256 {
            throw wrong("was changed: its SHA-256 is not the manifest's")
        }
    }

    /// The error for a manifest that contradicts itself.
    func wrong(_ problem: String) -> ClueError {
        ClueError(.bundle, "bundle \(root.path): \(problem); export it again")
    }

    // MARK: - Names

    /// - Throws: `ClueError` where there is no program of that name.
    func program(_ name: String) throws -> Program {
        guard let found = programs.first(where: { $0.name == name }) else {
            throw wrong("there is no program \(name)")
        }
        return found
    }

    func value(_ name: String) -> Value? { values.first { $0.name == name } }

    /// The index of a class given by name, or by its index in digits.
    /// - Throws: `ClueError` for an unknown class.
    public func label(_ name: String) throws -> Int {
        if let known = classes.firstIndex(of: name) { return known }
        guard let index = Int(name), name.allSatisfy(\.isNumber) else {
            throw ClueError.unknown("class", name, classes)
        }
        guard classes.indices.contains(index) else {
            throw ClueError(
                .invalid,
                "label \(index) is out of range: \(self.name) has classes 0 to \(classes.count - 1)")
        }
        return index
    }

    /// The method's scalars, some replaced.
    /// - Throws: `ClueError` for an unknown name or a value that is not finite in float32.
    public func merged(scalars given: [String: Double]) throws -> [String: Double] {
        for (name, value) in given.sorted(by: { $0.key < $1.key }) {
            guard scalars[name] != nil else { throw ClueError.unknown("scalar", name, scalars.keys) }
            guard abs(value) <= Double(Float.greatestFiniteMagnitude) else {
                throw ClueError(.invalid, "scalar \(name) is \(value): it must be finite in float32")
            }
        }
        return scalars.merging(given) { $1 }
    }
}
