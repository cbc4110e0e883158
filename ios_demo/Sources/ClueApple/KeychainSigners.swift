#if canImport(Security)
    import ClueCore
    import Foundation
    import Security

    /// Signs receipts by Ed25519 with a key that lies in the Keychain: readable by this app on this device alone, after the first
    /// unlock, never in a backup. The store has only its public half, `receipt.pub`, which also names the key.
    ///
    /// The Secure Enclave has no Ed25519, so the key is a Keychain item and not one that the Enclave holds.
    public struct KeychainSigners: SignerSource {
        private static let service = "io.cluemobile.receipts"

        public init() {}

        /// - Throws: ``ClueError`` of kind `storage` when the Keychain refuses, or no longer has the key of a store that has signed.
        public func signer(for folder: URL) throws -> any ReceiptSigner {
            let file = folder.appendingPathComponent("receipt.pub")
            guard FileManager.default.fileExists(atPath: file.path) else { return try make(file) }
            let text: String
            do {
                text = try String(contentsOf: file, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
            } catch {
                throw ClueError(.storage, "\(file.path) cannot be read: \(error.localizedDescription)")
            }
            var item: CFTypeRef?
            let query = Self.item(text).merging([kSecReturnData: true]) { $1 }
            let status = SecItemCopyMatching(query as CFDictionary, &item)
            guard status == errSecSuccess, let data = item as? Data else {
                let why = status == errSecItemNotFound ? "it is not there: was the store moved from another device?" : Self.text(status)
                throw ClueError(.storage, "the Keychain does not give the key of this store's receipts (\(text.prefix(16))...): \(why)")
            }
            guard let signer = Ed25519Signer(privateKey: [UInt8](data)), signer.publicKey == text else {
                throw ClueError(.storage, "the Keychain's key of this store's receipts is not the one that receipt.pub names")
            }
            return signer
        }

        /// A new key: first in the Keychain, then named in the store, so that what the store names is always there.
        private func make(_ file: URL) throws -> any ReceiptSigner {
            var key = [UInt8](repeating: 0, count: 32)
            guard SecRandomCopyBytes(kSecRandomDefault, key.count, &key) == errSecSuccess, let signer = Ed25519Signer(privateKey: key)
            else { throw ClueError(.storage, "the system gives no random bytes for the key of the receipts") }
            let attributes = Self.item(signer.publicKey).merging([
                kSecValueData: Data(key),
                kSecAttrAccessible: kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly,
                kSecAttrLabel: "Signs the receipts of forgetting",
            ]) { $1 }
            let status = SecItemAdd(attributes as CFDictionary, nil)
            guard status == errSecSuccess else {
                throw ClueError(.storage, "the Keychain does not keep the key of the receipts: \(Self.text(status))")
            }
            do {
                try Files.write(file, bytes: Array("\(signer.publicKey)\n".utf8))
            } catch {
                SecItemDelete(Self.item(signer.publicKey) as CFDictionary)
                throw error
            }
            return signer
        }

        /// What names the item of a public key.
        private static func item(_ publicKey: String) -> [CFString: Any] {
            [
                kSecClass: kSecClassGenericPassword, kSecAttrService: service, kSecAttrAccount: publicKey,
                kSecUseDataProtectionKeychain: true,
            ]
        }

        private static func text(_ status: OSStatus) -> String {
            SecCopyErrorMessageString(status, nil) as String? ?? "error \(status)"
        }
    }
#endif
