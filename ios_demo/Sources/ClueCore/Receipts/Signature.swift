#if canImport(CryptoKit)
    import CryptoKit
#else
    import COpenSSL
#endif

/// Checks of the signatures that receipts have.
enum Signature {
    /// Whether `signature` (hex of 64 bytes: Ed25519's, or r and s of ES256) is of the content by the key (hex).
    static func isValid(_ signature: String, of content: [UInt8], algorithm: String, key: String) -> Bool {
        guard let raw = bytes(signature), raw.count == 64, let known = bytes(key) else { return false }
        switch algorithm {
        case "Ed25519": return Ed25519.isValid(raw, of: content, key: known)
        case "ES256": return known.count == 65 && known[0] == 4 && es256(raw, content, known)
        default: return false
        }
    }

    /// The bytes of lower-case hexadecimal digits; nil for anything else.
    static func bytes(_ hex: String) -> [UInt8]? {
        let digits = Array(hex.utf8)
        guard digits.count % 2 == 0 else { return nil }
        var found: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = value(digits[index]), let low = value(digits[index + 1]) else { return nil }
            found.append(high << 4 | low)
        }
        return found
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x61...0x66: digit - 0x61 + 10
        default: nil
        }
    }

    #if canImport(CryptoKit)
        private static func es256(_ raw: [UInt8], _ content: [UInt8], _ point: [UInt8]) -> Bool {
            guard let key = try? P256.Signing.PublicKey(x963Representation: point),
                let signature = try? P256.Signing.ECDSASignature(rawRepresentation: raw)
            else { return false }
            return key.isValidSignature(signature, for: content)
        }
    #else
        /// What stands before the point in the key's DER form (RFC 5480): ecPublicKey, prime256v1, a bit string.
        private static let keyHeader: [UInt8] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE,
            0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ]

        private static func es256(_ raw: [UInt8], _ content: [UInt8], _ point: [UInt8]) -> Bool {
            let encoded = keyHeader + point
            let key: OpaquePointer? = encoded.withUnsafeBufferPointer { buffer in
                var start = buffer.baseAddress
                return d2i_PUBKEY(nil, &start, buffer.count)
            }
            guard let key else { return false }
            defer { EVP_PKEY_free(key) }
            let context = EVP_MD_CTX_new()
            defer { EVP_MD_CTX_free(context) }
            let parts = number(raw.prefix(32)) + number(raw.suffix(32))
            let signature = [0x30, UInt8(parts.count)] + parts
            guard EVP_DigestVerifyInit(context, nil, EVP_sha256(), nil, key) == 1 else { return false }
            return EVP_DigestVerify(context, signature, signature.count, content, content.count) == 1
        }

        /// A positive whole number in DER.
        private static func number(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
            var digits = Array(bytes.drop { $0 == 0 })
            if digits.isEmpty || digits[0] >= 0x80 { digits.insert(0, at: 0) }
            return [0x02, UInt8(digits.count)] + digits
        }
    #endif
}
