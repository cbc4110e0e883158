package io.cluemobile.store

import java.security.GeneralSecurityException
import java.security.SecureRandom
import javax.crypto.Cipher
import javax.crypto.spec.GCMParameterSpec
import javax.crypto.spec.SecretKeySpec

/** AES-256-GCM as the store uses it: what is locked is nonce (12 bytes), encrypted data, tag (16). */
internal object AesGcm {
    const val KEY_BYTES: Int = 32
    private const val NONCE_BYTES = 12
    private const val TAG_BITS = 128
    private val random = SecureRandom()

    /** [KEY_BYTES] random bytes. */
    fun newKey(): ByteArray = ByteArray(KEY_BYTES).also(random::nextBytes)

    /** Encrypts [data] under [key]; [about] must be given again to unlock. */
    fun lock(key: ByteArray, data: ByteArray, about: ByteArray): ByteArray {
        val nonce = ByteArray(NONCE_BYTES).also(random::nextBytes)
        return nonce + cipher(Cipher.ENCRYPT_MODE, key, nonce, about).doFinal(data)
    }

    /** What [lock] was given; null when the key is another one or anything was changed. */
    fun unlock(key: ByteArray, content: ByteArray, about: ByteArray): ByteArray? {
        if (content.size < NONCE_BYTES) return null
        val nonce = content.copyOf(NONCE_BYTES)
        return try {
            cipher(Cipher.DECRYPT_MODE, key, nonce, about).doFinal(content, NONCE_BYTES, content.size - NONCE_BYTES)
        } catch (_: GeneralSecurityException) {
            null
        }
    }

    private fun cipher(mode: Int, key: ByteArray, nonce: ByteArray, about: ByteArray): Cipher {
        val cipher = Cipher.getInstance("AES/GCM/NoPadding")
        cipher.init(mode, SecretKeySpec(key, "AES"), GCMParameterSpec(TAG_BITS, nonce))
        cipher.updateAAD(about)
        return cipher
    }
}
