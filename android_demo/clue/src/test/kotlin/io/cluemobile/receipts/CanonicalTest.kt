package io.cluemobile.receipts

import io.cluemobile.ClueException
import io.cluemobile.Contract
import io.cluemobile.files.hex
import io.cluemobile.json.StrictJson
import io.cluemobile.json.asObject
import io.cluemobile.json.objects
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.random.Random

/** Canonical JSON against the examples that RFC 8785 publishes. */
internal class CanonicalTest {
    private val known = Contract.json("receipts/canonical.json")

    @Test
    fun `the known numbers`() {
        for (case in known.objects("numbers")) {
            val value = Double.fromBits((case["bits"] as String).toULong(16).toLong())
            val text = case["text"] as String?
            if (text == null) assertThrows(ClueException::class.java) { Canonical.dumps(value) }
            else assertEquals(text, Canonical.dumps(value))
        }
    }

    @Test
    fun `the known documents`() {
        for (case in known.objects("documents")) {
            val dumped = Canonical.dumps(StrictJson.parse((case["json"] as String).toByteArray(), 1 shl 20))
            (case["utf8"] as String?)?.let { assertEquals(it, dumped.toByteArray().hex()) }
            (case["order"] as List<*>?)?.let { order ->
                val found = StrictJson.parse(dumped.toByteArray(), 1 shl 20).asObject()
                assertEquals(order, found.values.toList())
            }
        }
    }

    @Test
    fun `a number has the fewest digits that read as it`() {
        val random = Random(1)
        repeat(2_000) {
            val value = Double.fromBits(random.nextLong())
            if (!value.isFinite()) return@repeat
            val text = Canonical.number(value)
            assertEquals(value, text.toDouble())
            val digits = text.substringBefore('e').filter(Char::isDigit).trim('0').length
            assertTrue(digits <= 17, text)
        }
    }

    @Test
    fun `what JSON has not is refused`() {
        for (wrong in listOf(Double.NaN, (1L shl 53) + 1, "\ud800", mapOf(1 to 2), Any())) {
            assertThrows(ClueException::class.java) { Canonical.dumps(wrong) }
        }
        assertEquals("9007199254740992", Canonical.dumps(1L shl 53))
    }
}
