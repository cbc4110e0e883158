package io.cluemobile.random

import kotlin.math.sqrt

private const val SQRT_HALF_BITS = 0x3FE6A09E00000000L // the bits of sqrt(1/2), low word cut off
private const val MANTISSA = 0x000FFFFFFFFFFFFFL
private val LN2 = hex("0x1.62e42fefa39efp-1")

// Near-minimax polynomials, lowest power first (contract/rng.md, "Coefficients").
private val LOG = doubleArrayOf(
    hex("0x1p+1"), hex("0x1.5555555555558p-1"), hex("0x1.99999999952e1p-2"), hex("0x1.2492492df1681p-2"),
    hex("0x1.c71c62e558272p-3"), hex("0x1.7462b4b689086p-3"), hex("0x1.39fe5eebedfa5p-3"), hex("0x1.2b585ce66ecd3p-3"),
)
private val SIN = doubleArrayOf(
    hex("0x1.921fb54442d18p+0"), hex("-0x1.4abbce625be41p-1"), hex("0x1.466bc677587f8p-4"), hex("-0x1.32d2cce2e5b19p-8"),
    hex("0x1.50782fda12d96p-13"), hex("-0x1.e30071afc3e59p-19"), hex("0x1.e3f38399551bfp-25"),
)
private val COS = doubleArrayOf(
    hex("0x1p+0"), hex("-0x1.3bd3cc9be45dep+0"), hex("0x1.03c1f081b5ac0p-2"), hex("-0x1.55d3c7e3cb241p-6"),
    hex("0x1.e1f5068688d5bp-11"), hex("-0x1.a6d1eef479be1p-16"), hex("0x1.f9ce245cada0bp-22"), hex("-0x1.b2f3eb054afcdp-28"),
)

// Kotlin has no hexadecimal floating literals.
private fun hex(text: String): Double = java.lang.Double.parseDouble(text)

/** The polynomial in [z] by a rounded product and a rounded sum a step: never a fused multiply-add. */
private fun horner(coefficients: DoubleArray, z: Double): Double {
    var result = coefficients[coefficients.size - 1]
    for (i in coefficients.size - 2 downTo 0) result = result * z + coefficients[i]
    return result
}

/** -ln(k / 2^32) for whole [k] in 1 .. 2^32 (contract/rng.md, section 5). */
internal fun negLog(k: Long): Double {
    val bits = k.toDouble().toRawBits() - SQRT_HALF_BITS
    val exponent = bits ushr 52
    val m = Double.fromBits((bits and MANTISSA) + SQRT_HALF_BITS)
    val s = (m - 1.0) / (m + 1.0)
    val p = horner(LOG, s * s) * s
    return (32 - exponent).toDouble() * LN2 - p
}

/** cos and sin of 2 pi k / 2^32 for whole k in 1 .. 2^32 (contract/rng.md, section 6), and normal numbers from them. */
internal class Turn {
    var cos: Double = 0.0
        private set
    var sin: Double = 0.0
        private set

    fun of(k: Long) {
        val quarter = (k + (1L shl 29)) shr 30
        val y = (k - (quarter shl 30)).toDouble() * POWER_MINUS_30
        val z = y * y
        val c = horner(COS, z)
        val s = horner(SIN, z) * y
        when ((quarter and 3).toInt()) {
            0 -> set(c, s)
            1 -> set(-s, c)
            2 -> set(-c, -s)
            else -> set(s, -c)
        }
    }

    /** Puts the two normal numbers of a pair of words into [out] at [at]; the second one only where [two]. */
    fun normal(first: Long, second: Long, out: FloatArray, at: Int, two: Boolean) {
        val radius = sqrt(2.0 * negLog(first + 1))
        of(second + 1)
        out[at] = (radius * cos).toFloat()
        if (two) out[at + 1] = (radius * sin).toFloat()
    }

    private fun set(c: Double, s: Double) {
        cos = c
        sin = s
    }

    private companion object {
        const val POWER_MINUS_30 = 1.0 / (1L shl 30)
    }
}
