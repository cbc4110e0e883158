package io.cluemobile.receipts

import io.cluemobile.ClueException
import io.cluemobile.json.StrictJson
import io.cluemobile.json.joined
import java.math.BigDecimal
import java.math.MathContext
import java.math.RoundingMode

/** JSON in its canonical form (RFC 8785), so that a hash or a signature over it means the same everywhere. */
internal object Canonical {
    private const val EXACT = 1L shl 53
    private const val MOST_DIGITS = 17

    /**
     * The canonical text of null, Boolean, Int, Long, Double, String, lists and maps with string keys.
     *
     * Throws [ClueException] for what JSON has not: other types, numbers that are not finite, whole numbers that a double
     * does not hold, text with half a surrogate pair.
     */
    fun dumps(value: Any?): String = StringBuilder().also { write(value, it) }.toString()

    private fun write(value: Any?, out: StringBuilder) {
        when (value) {
            null -> out.append("null")
            is Boolean -> out.append(value)
            is Int -> out.append(value)
            is Long -> out.append(whole(value))
            is Double -> out.append(number(value))
            is String -> string(value, out)
            is Map<*, *> -> {
                // Strings of the JVM compare by UTF-16 code units, which is what the standard asks.
                val keys = value.keys.map { it as? String ?: throw ClueException("a key of a JSON object is no text: $it") }
                joined('{', '}', keys.sorted(), out) {
                    string(it, out)
                    out.append(':')
                    write(value[it], out)
                }
            }
            is Iterable<*> -> joined('[', ']', value, out) { write(it, out) }
            else -> throw ClueException("canonical JSON has no ${value::class.simpleName}")
        }
    }

    private fun string(text: String, out: StringBuilder) {
        if (StrictJson.hasHalfPair(text)) throw ClueException("canonical JSON has no text with half a surrogate pair")
        out.append('"')
        for (each in text) {
            when (each) {
                '"' -> out.append("\\\"")
                '\\' -> out.append("\\\\")
                '\b' -> out.append("\\b")
                '\t' -> out.append("\\t")
                '\n' -> out.append("\\n")
                '\u000c' -> out.append("\\f")
                '\r' -> out.append("\\r")
                else -> if (each < ' ') out.append("\\u%04x".format(each.code)) else out.append(each)
            }
        }
        out.append('"')
    }

    private fun whole(value: Long): String {
        if (value > EXACT || value < -EXACT) {
            throw ClueException("canonical JSON has no whole number beyond 2^53: a double would not hold it exactly")
        }
        return value.toString()
    }

    /** As ECMAScript's Number::toString writes a double. */
    fun number(value: Double): String {
        if (!value.isFinite()) throw ClueException("canonical JSON has no number $value")
        if (value == 0.0) return "0"
        val sign = if (value < 0) "-" else ""
        val shortest = shortest(Math.abs(value))
        val digits = shortest.unscaledValue().toString().trimEnd('0')
        // The value is 0.digits times ten to the power of `point`.
        val point = shortest.precision() - shortest.scale()
        return sign + when {
            point in digits.length..21 -> digits + "0".repeat(point - digits.length)
            point in 1..21 -> digits.substring(0, point) + "." + digits.substring(point)
            point in -5..0 -> "0." + "0".repeat(-point) + digits
            else -> {
                val fraction = if (digits.length > 1) "." + digits.substring(1) else ""
                val exponent = point - 1
                "${digits[0]}${fraction}e${if (exponent < 0) "-" else "+"}${Math.abs(exponent)}"
            }
        }
    }

    /**
     * The decimal number of the fewest digits that reads as [value], of these the nearest to it. Double.toString is not
     * always that before Java 19, nor on Android.
     */
    private fun shortest(value: Double): BigDecimal {
        val exact = BigDecimal(value)
        for (digits in 1..MOST_DIGITS) {
            val around = listOf(RoundingMode.FLOOR, RoundingMode.CEILING).map { exact.round(MathContext(digits, it)) }
            val same = around.filter { it.toString().toDouble() == value }
            if (same.isNotEmpty()) return same.minBy { (it - exact).abs() }
        }
        error("17 digits tell every double from its neighbours")
    }
}
