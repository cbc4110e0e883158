package io.cluemobile.json

/** What is wrong with a JSON text, in words that follow "it is not valid JSON". */
internal class JsonException(message: String) : Exception(message)

/**
 * JSON from files that may be hostile: one meaning only, and no depth, size or number to choke on.
 *
 * Objects become [Map], arrays [List], whole numbers without a point or an exponent [Long], others [Double]; strings, Boolean and
 * null stay what they are.
 */
internal object StrictJson {
    const val MAX_DEPTH: Int = 64

    /** Whole numbers beyond this are not the same in every language. */
    const val MOST: Long = (1L shl 53) - 1

    /**
     * The value of a JSON text in UTF-8. Throws [JsonException] for one longer than [maxBytes], not UTF-8, not JSON, nested
     * deeper than 64, a key twice in one object, NaN or infinity, a whole number beyond 2^53 - 1, half a surrogate pair.
     */
    fun parse(content: ByteArray, maxBytes: Int): Any? {
        if (content.size > maxBytes) throw JsonException("it has ${content.size} bytes, more than $maxBytes")
        val text = try {
            Charsets.UTF_8.newDecoder().decode(java.nio.ByteBuffer.wrap(content)).toString()
        } catch (_: java.nio.charset.CharacterCodingException) {
            throw JsonException("it is not UTF-8")
        }
        return Parser(text).document()
    }

    /** Every string in a JSON value, keys too. */
    fun strings(value: Any?): Sequence<String> = sequence {
        when (value) {
            is String -> yield(value)
            is Map<*, *> -> for ((key, inner) in value) {
                yield(key as String)
                yieldAll(strings(inner))
            }
            is List<*> -> for (inner in value) yieldAll(strings(inner))
        }
    }

    /** Whether a text has characters that a screen or terminal would act on. */
    fun hasControl(text: String): Boolean = text.any { it < ' ' || it in '\u007f'..'\u009f' } || hasHalfPair(text)

    /** Whether a text has a surrogate without its other half. */
    fun hasHalfPair(text: String): Boolean {
        var i = 0
        while (i < text.length) {
            val here = text[i]
            if (here.isHighSurrogate() && i + 1 < text.length && text[i + 1].isLowSurrogate()) i++
            else if (here.isSurrogate()) return true
            i++
        }
        return false
    }
}

private class Parser(private val text: String) {
    private var at = 0

    fun document(): Any? {
        skip()
        val value = value(0)
        skip()
        if (at < text.length) fail("there is more after its end")
        return value
    }

    private fun value(depth: Int): Any? {
        if (at >= text.length) fail("it ends too early")
        return when (val first = text[at]) {
            '{' -> objectAt(nested(depth))
            '[' -> arrayAt(nested(depth))
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> if (first == '-' || first in '0'..'9') number() else fail("character ${describe(first)} begins no value")
        }
    }

    private fun nested(depth: Int): Int {
        if (depth == StrictJson.MAX_DEPTH) throw JsonException("it is nested deeper than ${StrictJson.MAX_DEPTH}")
        return depth + 1
    }

    private fun objectAt(depth: Int): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        at++
        skip()
        if (take('}')) return found
        while (true) {
            if (at >= text.length || text[at] != '"') fail("a key is missing")
            val key = string()
            skip()
            if (!take(':')) fail("a colon is missing")
            skip()
            val value = value(depth)
            if (found.containsKey(key)) throw JsonException("the key '${key.take(50)}' is there twice")
            found[key] = value
            skip()
            if (take('}')) return found
            if (!take(',')) fail("a comma is missing")
            skip()
        }
    }

    private fun arrayAt(depth: Int): List<Any?> {
        val found = ArrayList<Any?>()
        at++
        skip()
        if (take(']')) return found
        while (true) {
            found += value(depth)
            skip()
            if (take(']')) return found
            if (!take(',')) fail("a comma is missing")
            skip()
        }
    }

    private fun string(): String {
        val out = StringBuilder()
        at++
        while (true) {
            if (at >= text.length) fail("a string does not end")
            when (val each = text[at++]) {
                '"' -> break
                '\\' -> out.append(escape())
                else -> if (each < ' ') fail("a string has the character ${describe(each)}") else out.append(each)
            }
        }
        return out.toString().also {
            if (StrictJson.hasHalfPair(it)) throw JsonException("a string has half a surrogate pair")
        }
    }

    private fun escape(): Char {
        if (at >= text.length) fail("a string does not end")
        return when (val each = text[at++]) {
            '"', '\\', '/' -> each
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> {
                val digits = text.substring(at, minOf(at + 4, text.length))
                if (digits.length != 4 || !digits.all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }) {
                    fail("an escape is not four hexadecimal digits")
                }
                at += 4
                digits.toInt(16).toChar()
            }
            else -> fail("a string has the escape ${describe(each)}")
        }
    }

    private fun number(): Any {
        val start = at
        take('-')
        if (!take('0')) digits()
        var whole = true
        if (take('.')) {
            whole = false
            digits()
        }
        if (at < text.length && (text[at] == 'e' || text[at] == 'E')) {
            whole = false
            at++
            if (!take('+')) take('-')
            digits()
        }
        val found = text.substring(start, at)
        return if (whole) integer(found) else fraction(found)
    }

    private fun integer(found: String): Long {
        val value = if (found.length > 17) null else found.toLong()
        if (value == null || value > StrictJson.MOST || value < -StrictJson.MOST) {
            throw JsonException("the number ${found.take(20)} is beyond 2^53 - 1")
        }
        return value
    }

    private fun fraction(found: String): Double = found.toDouble().also {
        if (!it.isFinite()) throw JsonException("the number ${found.take(20)} is out of range")
    }

    private fun digits() {
        val start = at
        while (at < text.length && text[at] in '0'..'9') at++
        if (at == start) fail("a number has no digits")
    }

    private fun word(name: String, value: Any?): Any? {
        if (!text.startsWith(name, at)) fail("an unknown word")
        at += name.length
        return value
    }

    private fun skip() {
        while (at < text.length && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r')) at++
    }

    private fun take(wanted: Char): Boolean {
        if (at >= text.length || text[at] != wanted) return false
        at++
        return true
    }

    private fun describe(each: Char): String = "U+%04X".format(each.code)

    private fun fail(problem: String): Nothing = throw JsonException("$problem at character $at")
}
