package io.cluemobile.bundle

import java.math.BigInteger
import java.security.MessageDigest

/**
 * Verification of Ed25519 signatures (RFC 8032, section 5.1.7), for Android versions whose providers have none.
 *
 * All that goes in is public, so nothing here needs to take constant time. Signing is the platform's.
 */
internal object Ed25519 {
    private val TWO = BigInteger.valueOf(2)
    private val P = TWO.pow(255) - BigInteger.valueOf(19)
    private val L = TWO.pow(252) + BigInteger("27742317777372353535851937790883648493")
    private val D = (BigInteger.valueOf(-121665) * BigInteger.valueOf(121666).modInverse(P)).mod(P)
    private val SQRT_MINUS_1 = TWO.modPow((P - BigInteger.ONE) / BigInteger.valueOf(4), P)
    private val BASE_Y = (BigInteger.valueOf(4) * BigInteger.valueOf(5).modInverse(P)).mod(P)
    private val BASE = checkNotNull(fromY(BASE_Y, odd = false))
    private val ZERO = Point(BigInteger.ZERO, BigInteger.ONE, BigInteger.ONE, BigInteger.ZERO)

    /** Whether [signature] (64 bytes) is that of [content] by the public [key] (32 bytes). */
    fun isSigned(content: ByteArray, signature: ByteArray, key: ByteArray): Boolean {
        if (signature.size != 64 || key.size != 32) return false
        val a = decode(key) ?: return false
        val r = signature.copyOfRange(0, 32)
        val s = little(signature.copyOfRange(32, 64))
        if (s >= L) return false
        val digest = MessageDigest.getInstance("SHA-512").apply {
            update(r)
            update(key)
            update(content)
        }.digest()
        val h = little(digest).mod(L)
        // R = s B - h A
        return encode(BASE.times(s).plus(a.negated().times(h))).contentEquals(r)
    }

    /** A point in extended coordinates: x = X / Z, y = Y / Z, x y = T / Z. */
    private class Point(val x: BigInteger, val y: BigInteger, val z: BigInteger, val t: BigInteger) {
        fun negated() = Point((P - x).mod(P), y, z, (P - t).mod(P))

        fun plus(other: Point): Point {
            val a = ((y - x) * (other.y - other.x)).mod(P)
            val b = ((y + x) * (other.y + other.x)).mod(P)
            val c = (t * TWO * D * other.t).mod(P)
            val d = (z * TWO * other.z).mod(P)
            val e = b - a
            val f = d - c
            val g = d + c
            val h = b + a
            return Point((e * f).mod(P), (g * h).mod(P), (f * g).mod(P), (e * h).mod(P))
        }

        fun times(factor: BigInteger): Point {
            var result = ZERO
            for (bit in factor.bitLength() - 1 downTo 0) {
                result = result.plus(result)
                if (factor.testBit(bit)) result = result.plus(this)
            }
            return result
        }
    }

    private fun little(bytes: ByteArray) = BigInteger(1, bytes.reversedArray())

    private fun encode(point: Point): ByteArray {
        val inverse = point.z.modInverse(P)
        val x = (point.x * inverse).mod(P)
        val y = (point.y * inverse).mod(P)
        val number = if (x.testBit(0)) y.setBit(255) else y
        val big = number.toByteArray()
        return ByteArray(32) { i -> if (i < big.size) big[big.size - 1 - i] else 0 }
    }

    private fun decode(bytes: ByteArray): Point? {
        val number = little(bytes)
        return fromY(number.clearBit(255), number.testBit(255))
    }

    private fun fromY(y: BigInteger, odd: Boolean): Point? {
        if (y >= P) return null
        val u = (y * y - BigInteger.ONE).mod(P)
        val v = (D * y * y + BigInteger.ONE).mod(P)
        val root = (u * v.modInverse(P)).mod(P)
        var x = root.modPow((P + BigInteger.valueOf(3)) / BigInteger.valueOf(8), P)
        if ((x * x).mod(P) != root) x = (x * SQRT_MINUS_1).mod(P)
        if ((x * x).mod(P) != root || x.signum() == 0 && odd) return null
        if (x.testBit(0) != odd) x = (P - x).mod(P)
        return Point(x, y, BigInteger.ONE, (x * y).mod(P))
    }
}
