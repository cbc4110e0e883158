package io.cluemobile.bundle

import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.math.BigInteger
import java.security.KeyPairGenerator
import java.security.Signature
import kotlin.random.Random

class Ed25519Test {
    private fun bytes(hex: String): ByteArray = hex.chunked(2).map { it.toInt(16).toByte() }.toByteArray()

    @Test
    fun `the vectors of RFC 8032`() {
        val key = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        val signature = bytes(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da" +
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        )
        assertTrue(Ed25519.isSigned(bytes("72"), signature, key))
        assertFalse(Ed25519.isSigned(bytes("73"), signature, key))
    }

    @Test
    fun `what the JDK signs is signed, and every change is found`() {
        val random = Random(1)
        repeat(10) { round ->
            val keys = KeyPairGenerator.getInstance("Ed25519").generateKeyPair()
            val key = keys.public.encoded.takeLast(32).toByteArray()
            val content = random.nextBytes(round * 50)
            val signature = Signature.getInstance("Ed25519").apply {
                initSign(keys.private)
                update(content)
            }.sign()
            assertTrue(Ed25519.isSigned(content, signature, key))
            assertFalse(Ed25519.isSigned(content + 1, signature, key))
            val at = random.nextInt(64)
            val changed = signature.copyOf().apply { this[at] = (this[at].toInt() xor (1 shl random.nextInt(8))).toByte() }
            assertFalse(Ed25519.isSigned(content, changed, key))
        }
    }

    @Test
    fun `a second spelling of a signature, and nonsense, are no signatures`() {
        val keys = KeyPairGenerator.getInstance("Ed25519").generateKeyPair()
        val key = keys.public.encoded.takeLast(32).toByteArray()
        val signature = Signature.getInstance("Ed25519").apply { initSign(keys.private) }.sign()
        val order = BigInteger.valueOf(2).pow(252) + BigInteger("27742317777372353535851937790883648493")
        val larger = BigInteger(1, signature.copyOfRange(32, 64).reversedArray()) + order
        val again = signature.copyOf(32) + larger.toByteArray().reversedArray().copyOf(32)
        assertTrue(Ed25519.isSigned(ByteArray(0), signature, key))
        assertFalse(Ed25519.isSigned(ByteArray(0), again, key))
        assertFalse(Ed25519.isSigned(ByteArray(0), signature, ByteArray(32) { -1 }))
        assertFalse(Ed25519.isSigned(ByteArray(0), ByteArray(63), key))
    }
}
