import Foundation

/// Whose bundles are accepted: Ed25519 signatures of manifest.json, by keys that the app's maker lists.
public struct TrustedKeys: Sendable {
    /// Public keys, 32 bytes each; a bundle must be signed by one of them.
    public let keys: [[UInt8]]

    /// - Throws: `ClueError` for a key that is not 32 bytes, and for no key at all.
    public init(_ keys: [[UInt8]]) throws {
        guard !keys.isEmpty, keys.allSatisfy({ $0.count == 32 }) else {
            throw ClueError(.invalid, "trusted keys are Ed25519 public keys of 32 bytes, and at least one")
        }
        self.keys = keys
    }

    /// Keys in hex, 64 digits each. Throws `ClueError` for anything else.
    public init(hex: [String]) throws {
        try self.init(
            hex.map { text in
                let digits = Array(text.utf8)
                guard digits.count == 64 else { return [] }
                let bytes = stride(from: 0, to: 64, by: 2).compactMap { place in
                    UInt8(String(decoding: digits[place..<place + 2], as: UTF8.self), radix: 16)
                }
                return bytes
            })
    }

    private static let signature = "manifest.sig"

    /// - Throws: `ClueError` unless the manifest was signed with one of the keys.
    func check(_ manifest: [UInt8], of bundle: URL) throws {
        let place = bundle.appendingPathComponent(Self.signature)
        guard FileManager.default.fileExists(atPath: place.path) else {
            throw ClueError(.bundle, "bundle \(bundle.path) is not signed, and only signed ones are trusted here")
        }
        let signature = try RegularFile.small(place, most: 64)
        guard keys.contains(where: { Ed25519.isValid(signature, of: manifest, key: $0) }) else {
            throw ClueError(
                .bundle,
                "bundle \(bundle.path) is not signed by a trusted key, or was changed after it was signed")
        }
    }
}
