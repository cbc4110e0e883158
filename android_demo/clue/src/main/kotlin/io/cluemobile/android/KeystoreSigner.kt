package io.cluemobile.android

import android.os.Build
import android.security.keystore.KeyGenParameterSpec
import android.security.keystore.KeyProperties
import io.cluemobile.ClueException
import io.cluemobile.Signer
import io.cluemobile.StorageException
import io.cluemobile.files.atomicWrite
import io.cluemobile.files.hex
import io.cluemobile.files.readSmall
import io.cluemobile.signing.ed25519Key
import io.cluemobile.signing.es256FromDer
import io.cluemobile.signing.p256Point
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path
import java.security.GeneralSecurityException
import java.security.KeyPairGenerator
import java.security.KeyStore
import java.security.PrivateKey
import java.security.ProviderException
import java.security.PublicKey
import java.security.Signature
import java.security.interfaces.ECPublicKey
import java.security.spec.ECGenParameterSpec
import java.util.UUID

private const val PROVIDER = "AndroidKeyStore"
private const val ALIAS_FILE = "receipt.alias"
private const val MOST_ALIAS_BYTES = 200

/**
 * Signs with a key that never leaves the Android Keystore: Ed25519 from API 33 on where the device's keystore has it, else ES256.
 *
 * The store's folder has the key's name in `receipt.alias` and its public half in `receipt.pub`; a store that was copied to
 * another device has no key there, and says so.
 */
internal class KeystoreSigner private constructor(private val privateKey: PrivateKey, publicKey: PublicKey) : Signer {
    private val edwards: ByteArray? = ed25519Key(publicKey.encoded)

    override val alg: String = if (edwards != null) "Ed25519" else "ES256"

    override val key: String = (edwards ?: p256Point(publicKey as ECPublicKey)).hex()

    override fun sign(content: ByteArray): ByteArray = try {
        val signature = Signature.getInstance(if (edwards != null) "Ed25519" else "SHA256withECDSA")
        signature.initSign(privateKey)
        signature.update(content)
        signature.sign().let { if (edwards != null) it else es256FromDer(it) }
    } catch (error: GeneralSecurityException) {
        throw ClueException("the Android Keystore did not sign the receipt (${error.message}); nothing was changed", error)
    } catch (error: ProviderException) { // what the keystore's own process reports, such as a locked device
        throw ClueException("the Android Keystore did not sign the receipt (${error.message}); nothing was changed", error)
    }

    companion object {
        /** The signer of the store in [folder]; its key is made on first use. Throws [StorageException]. */
        fun open(folder: Path): KeystoreSigner {
            val file = folder.resolve(ALIAS_FILE)
            try {
                val keys = KeyStore.getInstance(PROVIDER).apply { load(null) }
                val known = if (Files.exists(file)) String(readSmall(file, MOST_ALIAS_BYTES), Charsets.US_ASCII).trim() else null
                val signer = found(keys, known ?: make(file)) ?: throw StorageException(
                    "the key that signs the receipts of $folder is not in this device's Android Keystore: a store cannot be taken to " +
                        "another device; move it away, and a new one begins",
                )
                val public = folder.resolve("receipt.pub")
                if (!Files.exists(public)) write(public, signer.key)
                return signer
            } catch (error: GeneralSecurityException) {
                throw StorageException("the Android Keystore cannot be used: ${error.message}", error)
            } catch (error: ProviderException) {
                throw StorageException("the Android Keystore cannot be used: ${error.message}", error)
            }
        }

        private fun found(keys: KeyStore, alias: String): KeystoreSigner? {
            val private = keys.getKey(alias, null) as? PrivateKey ?: return null
            return keys.getCertificate(alias)?.let { KeystoreSigner(private, it.publicKey) }
        }

        /** Makes a key, then writes its name: a name without a key would be taken for a copied store. */
        private fun make(file: Path): String {
            val alias = "io.cluemobile.receipts.${UUID.randomUUID()}"
            if (Build.VERSION.SDK_INT < Build.VERSION_CODES.TIRAMISU || !generated(alias, "ed25519", KeyProperties.DIGEST_NONE)) {
                if (!generated(alias, "secp256r1", KeyProperties.DIGEST_SHA256)) {
                    throw StorageException("the Android Keystore of this device made no key for receipts: restart the device and try again")
                }
            }
            write(file, alias)
            return alias
        }

        /** Whether the keystore made a pair of that curve; the hardware of many devices has no Ed25519. */
        private fun generated(alias: String, curve: String, digest: String): Boolean = try {
            val spec = KeyGenParameterSpec.Builder(alias, KeyProperties.PURPOSE_SIGN)
                .setAlgorithmParameterSpec(ECGenParameterSpec(curve))
                .setDigests(digest)
                .build()
            KeyPairGenerator.getInstance(KeyProperties.KEY_ALGORITHM_EC, PROVIDER).run {
                initialize(spec)
                generateKeyPair()
            }
            true
        } catch (_: GeneralSecurityException) {
            false
        } catch (_: ProviderException) {
            false
        }

        private fun write(file: Path, text: String) {
            atomicWrite(file, sequenceOf(ByteBuffer.wrap("$text\n".encodeToByteArray())))
        }
    }
}
