import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#else
    import COpenSSL
#endif

/// Keeps the key of a store's receipts as the file `receipt.key` in the store (the raw 32 bytes of Ed25519), with its public half in hex
/// in `receipt.pub`: where there is no key store of the system.
public struct FileSigners: SignerSource {
    public init() {}

    public func signer(for folder: URL) throws -> any ReceiptSigner {
        let path = folder.appendingPathComponent("receipt.key")
        if !Files.exists(path) { try Files.write(path, bytes: randomBytes(32)) }
        guard let signer = Ed25519Signer(privateKey: try RegularFile.small(path, most: 1 << 16)) else {
            throw ClueError(
                .storage,
                "\(path.path) is damaged: it must have the 32 bytes of an Ed25519 key; move it away, and a new key is made, "
                    + "whose receipts need its own receipt.pub to be checked")
        }
        let publicPath = folder.appendingPathComponent("receipt.pub")
        if !Files.exists(publicPath) { try Files.write(publicPath, bytes: Array("\(signer.publicKey)\n".utf8)) }
        return signer
    }
}

/// Signs with an Ed25519 key that is in memory.
public struct Ed25519Signer: ReceiptSigner {
    public let algorithm = "Ed25519"
    public let publicKey: String
    private let privateKey: [UInt8]

    /// nil unless the key has 32 bytes.
    public init?(privateKey: [UInt8]) {
        guard privateKey.count == 32, let publicKey = Self.publicKey(of: privateKey) else { return nil }
        (self.privateKey, self.publicKey) = (privateKey, publicKey.hex)
    }

    #if canImport(CryptoKit)
        private static func publicKey(of key: [UInt8]) -> [UInt8]? {
            (try? Curve25519.Signing.PrivateKey(rawRepresentation: key)).map { Array($0.publicKey.rawRepresentation) }
        }

        public func sign(_ content: [UInt8]) throws -> String {
            do {
                let key = try Curve25519.Signing.PrivateKey(rawRepresentation: privateKey)
                return Array(try key.signature(for: content)).hex
            } catch {
                throw ClueError(.storage, "the receipt cannot be signed: \(error.localizedDescription)")
            }
        }
    #else
        private static func publicKey(of key: [UInt8]) -> [UInt8]? {
            guard let made = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, key, key.count) else { return nil }
            defer { EVP_PKEY_free(made) }
            var (bytes, count) = ([UInt8](repeating: 0, count: 32), 32)
            return EVP_PKEY_get_raw_public_key(made, &bytes, &count) == 1 ? bytes : nil
        }

        public func sign(_ content: [UInt8]) throws -> String {
            let key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, privateKey, privateKey.count)
            defer { EVP_PKEY_free(key) }
            let context = EVP_MD_CTX_new()
            defer { EVP_MD_CTX_free(context) }
            var (bytes, count) = ([UInt8](repeating: 0, count: 64), 64)
            guard EVP_DigestSignInit(context, nil, nil, nil, key) == 1,
                EVP_DigestSign(context, &bytes, &count, content, content.count) == 1
            else { throw ClueError(.storage, "the receipt cannot be signed: the system's library failed") }
            return bytes.hex
        }
    #endif
}
