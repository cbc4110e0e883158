package io.cluemobile.json

/** Writes JSON values of maps with string keys, lists, strings, whole numbers, finite doubles, Boolean and null. */
internal object JsonText {
    /** The text without spaces, keys in the order of the map. Throws IllegalArgumentException for anything else. */
    fun of(value: Any?): String = StringBuilder().also { write(value, it) }.toString()

    private fun write(value: Any?, out: StringBuilder) {
        when (value) {
            null -> out.append("null")
            is String -> string(value, out)
            is Boolean, is Int, is Long -> out.append(value)
            is Double -> {
                require(value.isFinite()) { "$value is no JSON number" }
                out.append(value)
            }
            is Map<*, *> -> joined('{', '}', value.entries, out) { (key, inner) ->
                string(key as String, out)
                out.append(':')
                write(inner, out)
            }
            is Iterable<*> -> joined('[', ']', value, out) { write(it, out) }
            else -> throw IllegalArgumentException("${value::class} is no JSON value")
        }
    }

    private fun string(text: String, out: StringBuilder) {
        out.append('"')
        for (each in text) {
            when {
                each == '"' || each == '\\' -> out.append('\\').append(each)
                each < ' ' || each.isSurrogate() -> out.append("\\u%04x".format(each.code))
                else -> out.append(each)
            }
        }
        out.append('"')
    }
}

/** Writes [parts] by [each] between [open] and [close], with commas and no spaces: how an array or object stands in JSON. */
internal fun <T> joined(open: Char, close: Char, parts: Iterable<T>, out: StringBuilder, each: (T) -> Unit) {
    out.append(open)
    parts.forEachIndexed { i, part ->
        if (i > 0) out.append(',')
        each(part)
    }
    out.append(close)
}
