import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#else
    import COpenSSL
#endif

/// SHA-256, fed piece by piece.
public struct Sha256 {
    #if canImport(CryptoKit)
        private var hash = SHA256()

        public init() {}

        public mutating func update(_ bytes: UnsafeRawBufferPointer) { hash.update(bufferPointer: bytes) }

        /// The digest of what was given, 32 bytes.
        public var digest: [UInt8] { Array(hash.finalize()) }
    #else
        private final class Context {
            let pointer = EVP_MD_CTX_new()
            init() { EVP_DigestInit_ex(pointer, EVP_sha256(), nil) }
            deinit { EVP_MD_CTX_free(pointer) }
        }

        private let context = Context()

        public init() {}

        public mutating func update(_ bytes: UnsafeRawBufferPointer) {
            guard let start = bytes.baseAddress else { return }
            EVP_DigestUpdate(context.pointer, start, bytes.count)
        }

        /// The digest of what was given, 32 bytes; nothing may be given after it.
        public var digest: [UInt8] {
            var found = [UInt8](repeating: 0, count: 32)
            EVP_DigestFinal_ex(context.pointer, &found, nil)
            return found
        }
    #endif

    public mutating func update(_ bytes: some Sequence<UInt8>) {
        Array(bytes).withUnsafeBytes { update($0) }
    }

    /// The digest of some bytes in hex.
    public static func hex(_ bytes: some Sequence<UInt8>) -> String {
        var hash = Sha256()
        hash.update(bytes)
        return hash.digest.hex
    }
}

extension Sequence<UInt8> {
    /// Two lower-case hexadecimal digits a byte.
    public var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}

/// Checks of Ed25519 signatures.
public enum Ed25519 {
    /// Whether `signature` (64 bytes) is that of `content` by the public key (32 bytes).
    public static func isValid(_ signature: [UInt8], of content: [UInt8], key: [UInt8]) -> Bool {
        guard signature.count == 64, key.count == 32 else { return false }
        #if canImport(CryptoKit)
            guard let known = try? Curve25519.Signing.PublicKey(rawRepresentation: key) else { return false }
            return known.isValidSignature(signature, for: content)
        #else
            guard let known = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nil, key, key.count) else {
                return false
            }
            defer { EVP_PKEY_free(known) }
            let context = EVP_MD_CTX_new()
            defer { EVP_MD_CTX_free(context) }
            guard EVP_DigestVerifyInit(context, nil, nil, nil, known) == 1 else { return false }
            return EVP_DigestVerify(context, signature, signature.count, content, content.count) == 1
        #endif
    }
}
