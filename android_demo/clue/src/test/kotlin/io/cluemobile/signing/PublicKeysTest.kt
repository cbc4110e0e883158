package io.cluemobile.signing

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import java.math.BigInteger
import java.security.KeyPairGenerator
import java.security.Signature
import java.security.interfaces.ECPublicKey
import java.security.spec.ECGenParameterSpec

/** What a platform's keys and signatures look like in a receipt. */
class PublicKeysTest {
    private fun pair(algorithm: String, curve: String?) = KeyPairGenerator.getInstance(algorithm).run {
        if (curve != null) initialize(ECGenParameterSpec(curve))
        generateKeyPair()
    }

    @Test
    fun `r and s of a signature are numbers of 32 bytes that the JVM accepts`() {
        val keys = pair("EC", "secp256r1")
        // r and s begin with a bit that DER pads in half of all
        repeat(40) { round ->
            val content = "receipt $round".encodeToByteArray()
            val der = Signature.getInstance("SHA256withECDSA").run {
                initSign(keys.private)
                update(content)
                sign()
            }
            val raw = es256FromDer(der)
            assertEquals(64, raw.size)
            val accepted = Signature.getInstance("SHA256withECDSAinP1363Format").run {
                initVerify(keys.public)
                update(content)
                verify(raw)
            }
            assertTrue(accepted)
        }
    }

    @Test
    fun `a damaged signature is refused`() {
        val good = byteArrayOf(0x30, 6, 2, 1, 5, 2, 1, 7)
        assertArrayEquals(ByteArray(31) + 5 + ByteArray(31) + 7, es256FromDer(good))
        val damaged = listOf(
            ByteArray(0), good.copyOf(7), good + 0, good.copyOf().also { it[1] = 7 }, good.copyOf().also { it[2] = 3 },
            good.copyOf().also { it[3] = 2 }, good.copyOf().also { it[3] = -1 }, good.copyOf().also { it[4] = -5 },
            byteArrayOf(0x30, 38, 2, 33) + ByteArray(33) { 1 } + byteArrayOf(2, 1, 7),
        )
        for (der in damaged) assertThrows<IllegalArgumentException>(der.joinToString()) { es256FromDer(der) }
    }

    @Test
    fun `a P-256 key is its uncompressed point`() {
        val key = pair("EC", "secp256r1").public as ECPublicKey
        val point = p256Point(key)
        assertEquals(65, point.size)
        assertEquals(4, point[0].toInt())
        assertEquals(key.w.affineX, BigInteger(1, point.copyOfRange(1, 33)))
        assertEquals(key.w.affineY, BigInteger(1, point.copyOfRange(33, 65)))
    }

    @Test
    fun `an Ed25519 key is the last 32 bytes of its encoding, and other keys are none`() {
        val encoded = pair("Ed25519", null).public.encoded
        assertArrayEquals(encoded.copyOfRange(12, 44), ed25519Key(encoded))
        assertNull(ed25519Key(pair("EC", "secp256r1").public.encoded))
        assertNull(ed25519Key(pair("X25519", null).public.encoded))
        assertNull(ed25519Key(ByteArray(3)))
    }
}
