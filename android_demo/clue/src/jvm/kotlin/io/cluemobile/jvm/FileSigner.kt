package io.cluemobile.jvm

import io.cluemobile.Signer
import io.cluemobile.StorageException
import io.cluemobile.files.atomicWrite
import io.cluemobile.files.hex
import io.cluemobile.files.readSmall
import io.cluemobile.signing.ed25519Key
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path
import java.security.KeyFactory
import java.security.KeyPairGenerator
import java.security.PrivateKey
import java.security.SecureRandom
import java.security.Signature
import java.security.interfaces.EdECPrivateKey
import java.security.spec.EdECPrivateKeySpec
import java.security.spec.NamedParameterSpec

private const val KEY_BYTES = 32
private const val MOST_BYTES = 1 shl 10

/** Ed25519 with a private key of 32 bytes in memory. */
internal class FileSigner private constructor(private val private: PrivateKey, override val key: String) : Signer {
    override val alg: String get() = "Ed25519"

    override fun sign(content: ByteArray): ByteArray = Signature.getInstance("Ed25519").run {
        initSign(private)
        update(content)
        sign()
    }

    companion object {
        /**
         * The key `receipt.key` of a store's [folder], made on first use (the raw 32 bytes, for its owner only); `receipt.pub`
         * beside it has the public half in hex. Throws [StorageException] when the key cannot be read, or is damaged.
         */
        fun open(folder: Path): FileSigner {
            val path = folder.resolve("receipt.key")
            if (!Files.exists(path)) write(path, ByteArray(KEY_BYTES).also(SecureRandom()::nextBytes))
            val raw = readSmall(path, MOST_BYTES)
            if (raw.size != KEY_BYTES) {
                throw StorageException(
                    "$path is damaged: it must have the 32 bytes of an Ed25519 key; move it away, and a new key is made, " +
                        "whose receipts need its own receipt.pub to be checked",
                )
            }
            val signer = of(raw)
            val public = folder.resolve("receipt.pub")
            if (!Files.exists(public)) write(public, "${signer.key}\n".toByteArray())
            return signer
        }

        private fun write(path: Path, content: ByteArray) {
            atomicWrite(path, sequenceOf(ByteBuffer.wrap(content)))
        }

        /** The signer of a private key of 32 bytes. */
        fun of(raw: ByteArray): FileSigner {
            val private = KeyFactory.getInstance("Ed25519").generatePrivate(EdECPrivateKeySpec(NamedParameterSpec.ED25519, raw))
            // Java makes public keys only while it makes private ones; a source of random numbers that gives these makes both.
            val generator = KeyPairGenerator.getInstance("Ed25519")
            generator.initialize(NamedParameterSpec.ED25519, Fixed(raw))
            val pair = generator.generateKeyPair()
            check((pair.private as EdECPrivateKey).bytes.get().contentEquals(raw)) { "the key generator took another key" }
            return FileSigner(private, ed25519Key(pair.public.encoded)!!.hex())
        }
    }

    private class Fixed(private val raw: ByteArray) : SecureRandom() {
        override fun nextBytes(bytes: ByteArray) {
            raw.copyInto(bytes)
        }
    }
}
