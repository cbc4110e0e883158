package io.cluemobile.json

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class StrictJsonTest {
    private fun parse(text: String, most: Int = 1000): Any? = StrictJson.parse(text.encodeToByteArray(), most)

    private fun refused(text: String, word: String) {
        val error = assertThrows(JsonException::class.java) { parse(text) }
        assertTrue(word in error.message.orEmpty()) { "$text: ${error.message}" }
    }

    @Test
    fun `every kind of value is read`() {
        val found = parse(""" {"a": [1, -2.5, 1e3, 0, -0.0], "b\u00e4\n": "\ud83d\ude00\/", "c": {}, "d": [], "e": [true, false, null]} """)
        val wanted = mapOf(
            "a" to listOf(1L, -2.5, 1000.0, 0L, -0.0),
            "bä\n" to "😀/",
            "c" to emptyMap<String, Any?>(),
            "d" to emptyList<Any?>(),
            "e" to listOf(true, false, null),
        )
        assertEquals(wanted, found)
        assertEquals(wanted, parse(JsonText.of(found)))
    }

    @Test
    fun `a text with more than one meaning or none is refused`() {
        refused("""{"a": 1, "a": 2}""", "twice")
        refused("""{"a": 1, "\u0061": 2}""", "twice")
        refused("9007199254740992", "2^53")
        refused("-9007199254740992", "2^53")
        refused("9".repeat(400), "2^53")
        refused("1e999", "out of range")
        refused(""""\ud800"""", "surrogate")
        refused(""""\udc00\ud800"""", "surrogate")
        val nonsense = listOf(
            "", "{", "[1,]", "{\"a\":1,}", "01", "1.", ".5", "+1", "1 2", "NaN", "Infinity", "tru", "'a'", "\"a", "\"\u0001\"", "\"\\x\"",
            "\"\\u12\"", "[1}",
        )
        for (each in nonsense) {
            assertThrows(JsonException::class.java, { parse(each) }, each)
        }
    }

    @Test
    fun `depth and length have a limit`() {
        parse("[".repeat(64) + "]".repeat(64))
        refused("[".repeat(65) + "]".repeat(65), "deeper")
        assertThrows(JsonException::class.java) { parse("[1, 2, 3]", most = 8) }
        assertThrows(JsonException::class.java) { StrictJson.parse(byteArrayOf('"'.code.toByte(), -1, '"'.code.toByte()), 10) }
    }

    @Test
    fun `control characters are found`() {
        assertTrue(StrictJson.hasControl("a\u001b[31m"))
        assertTrue(StrictJson.hasControl("\u0085"))
        assertFalse(StrictJson.hasControl("ä 😀"))
        assertEquals(listOf("k", "a", "b"), StrictJson.strings(parse("""{"k": ["a", {"b": 1}]}""")).toList())
    }

    @Test
    fun `numbers that JSON does not have are not written`() {
        assertThrows(IllegalArgumentException::class.java) { JsonText.of(listOf(Double.NaN)) }
    }

    @Test
    fun `a schema finds what is wrong and where`() {
        val schema = JsonSchema(
            parse(
                """{"type": "object", "required": ["a"], "additionalProperties": false, "properties": {
                "a": {"type": "array", "minItems": 1, "items": {"oneOf": [{"type": "integer", "minimum": 2}, {"const": "x"}]}},
                "b": {"enum": [1, null]}, "c": {"type": ["number", "null"], "exclusiveMinimum": 0}}}""",
            ).asObject(),
        )
        for (good in listOf("""{"a": [2, "x"]}""", """{"a": [3], "b": null, "c": 0.5}""", """{"a": [3], "b": 1.0, "c": null}""")) {
            assertEquals(null, schema.problem(parse(good)), good)
        }
        for ((bad, where) in listOf(
            "[]" to "top level",
            "{}" to "top level",
            """{"a": []}""" to "a",
            """{"a": [2, 1]}""" to "a/1",
            """{"a": [2.0]}""" to "a/0",
            """{"a": [2], "b": 2}""" to "b",
            """{"a": [2], "c": 0}""" to "c",
            """{"a": [2], "d": 0}""" to "top level",
        )) {
            assertEquals(where, schema.problem(parse(bad))?.where, bad)
        }
        assertThrows(IllegalArgumentException::class.java) { JsonSchema(mapOf("maxLength" to 3L)) }
    }
}
