#if canImport(CryptoKit)
    import CryptoKit
    import Foundation
#else
    import COpenSSL
#endif

/// A key of AES-256-GCM. What it locks is nonce (12 bytes), encrypted data, tag (16 bytes).
struct AESKey: Sendable {
    static let size = 32
    static let nonceSize = 12
    static let tagSize = 16

    /// The 32 bytes of the key.
    let bytes: [UInt8]

    init(bytes: [UInt8]) {
        precondition(bytes.count == Self.size)
        self.bytes = bytes
    }

    /// A new key from the system's random numbers.
    static func random() -> AESKey { AESKey(bytes: randomBytes(size)) }

    /// Encrypts `data`; `about` must be given again to unlock.
    func lock(_ data: [UInt8], _ about: [UInt8]) throws -> [UInt8] {
        let nonce = randomBytes(Self.nonceSize)
        guard let sealed = seal(data, nonce, about) else {
            throw ClueError(.storage, "the system's library failed to encrypt: nothing was stored")
        }
        return nonce + sealed
    }

    /// What `lock` was given; nil when the key is another one or anything was changed.
    func unlock(_ content: [UInt8], _ about: [UInt8]) -> [UInt8]? {
        guard content.count >= Self.nonceSize + Self.tagSize else { return nil }
        return open(content, about)
    }
}

#if canImport(CryptoKit)
    extension AESKey {
        private var key: SymmetricKey { SymmetricKey(data: bytes) }

        private func seal(_ data: [UInt8], _ nonce: [UInt8], _ about: [UInt8]) -> [UInt8]? {
            guard let nonce = try? AES.GCM.Nonce(data: nonce),
                let box = try? AES.GCM.seal(data, using: key, nonce: nonce, authenticating: about)
            else { return nil }
            return [UInt8](box.ciphertext) + [UInt8](box.tag)
        }

        private func open(_ content: [UInt8], _ about: [UInt8]) -> [UInt8]? {
            guard let box = try? AES.GCM.SealedBox(combined: content),
                let clear = try? AES.GCM.open(box, using: key, authenticating: about)
            else { return nil }
            return [UInt8](clear)
        }
    }
#else
    extension AESKey {
        private func seal(_ data: [UInt8], _ nonce: [UInt8], _ about: [UInt8]) -> [UInt8]? {
            let context = EVP_CIPHER_CTX_new()
            defer { EVP_CIPHER_CTX_free(context) }
            var (out, tag, count) = ([UInt8](repeating: 0, count: data.count), [UInt8](repeating: 0, count: 16), Int32(0))
            var rest = [UInt8](repeating: 0, count: 16)
            guard EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nil, bytes, nonce) == 1,
                EVP_EncryptUpdate(context, nil, &count, about, Int32(about.count)) == 1,
                EVP_EncryptUpdate(context, &out, &count, data, Int32(data.count)) == 1, Int(count) == data.count,
                EVP_EncryptFinal_ex(context, &rest, &count) == 1,
                EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, &tag) == 1
            else { return nil }
            return out + tag
        }

        private func open(_ content: [UInt8], _ about: [UInt8]) -> [UInt8]? {
            let context = EVP_CIPHER_CTX_new()
            defer { EVP_CIPHER_CTX_free(context) }
            let nonce = Array(content.prefix(Self.nonceSize))
            let data = Array(content.dropFirst(Self.nonceSize).dropLast(Self.tagSize))
            var tag = Array(content.suffix(Self.tagSize))
            var (out, count) = ([UInt8](repeating: 0, count: data.count), Int32(0))
            var rest = [UInt8](repeating: 0, count: 16)
            guard EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), nil, bytes, nonce) == 1,
                EVP_DecryptUpdate(context, nil, &count, about, Int32(about.count)) == 1,
                EVP_DecryptUpdate(context, &out, &count, data, Int32(data.count)) == 1, Int(count) == data.count,
                EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, &tag) == 1,
                EVP_DecryptFinal_ex(context, &rest, &count) == 1
            else { return nil }
            return out
        }
    }
#endif

/// Bytes from the system's source of random numbers for keys.
func randomBytes(_ count: Int) -> [UInt8] {
    var generator = SystemRandomNumberGenerator()
    return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
}
