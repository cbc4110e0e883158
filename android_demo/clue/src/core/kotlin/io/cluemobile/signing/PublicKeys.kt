package io.cluemobile.signing

import java.math.BigInteger
import java.security.interfaces.ECPublicKey

private const val P256_BYTES = 32
private const val DER_SEQUENCE = 0x30
private const val DER_INTEGER = 0x02
private const val UNCOMPRESSED: Byte = 4

// SubjectPublicKeyInfo of Ed25519 (RFC 8410): 12 bytes that are always the same, then the key.
private val ED25519_PREFIX = byteArrayOf(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00)

/** The 32 bytes of an Ed25519 public key from its encoded form; null when it is another kind of key. */
internal fun ed25519Key(encoded: ByteArray): ByteArray? {
    val key = encoded.copyOfRange(minOf(ED25519_PREFIX.size, encoded.size), encoded.size)
    return key.takeIf { it.size == 32 && encoded.copyOf(ED25519_PREFIX.size).contentEquals(ED25519_PREFIX) }
}

/** The uncompressed point of a P-256 public key: 4, x, y; 65 bytes. */
internal fun p256Point(key: ECPublicKey): ByteArray =
    byteArrayOf(UNCOMPRESSED) + fixed(key.w.affineX) + fixed(key.w.affineY)

/**
 * r and s, 32 bytes each, of an ECDSA signature in DER, which is what Java's and Android's providers make.
 *
 * Throws IllegalArgumentException for anything else.
 */
internal fun es256FromDer(der: ByteArray): ByteArray {
    // a sequence of two integers of at most 33 bytes each: every length is one byte
    require(der.size >= 8 && der[0].toInt() == DER_SEQUENCE && der[1].toInt() == der.size - 2) { "no ECDSA signature" }
    val (r, next) = integer(der, 2)
    val (s, end) = integer(der, next)
    require(end == der.size) { "an ECDSA signature with something behind it" }
    return fixed(r) + fixed(s)
}

private fun integer(der: ByteArray, at: Int): Pair<BigInteger, Int> {
    require(at + 2 <= der.size && der[at].toInt() == DER_INTEGER) { "no integer in an ECDSA signature" }
    val end = at + 2 + der[at + 1]
    require(der[at + 1] > 0 && end <= der.size) { "an integer of the wrong length in an ECDSA signature" }
    return BigInteger(der.copyOfRange(at + 2, end)) to end
}

private fun fixed(number: BigInteger): ByteArray {
    val bytes = number.toByteArray().dropWhile { it == 0.toByte() }.toByteArray()
    require(number.signum() >= 0 && bytes.size <= P256_BYTES) { "a number that is not P-256's" }
    return ByteArray(P256_BYTES - bytes.size) + bytes
}
