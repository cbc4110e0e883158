package io.cluemobile.store

import io.cluemobile.ClueException
import io.cluemobile.Options
import io.cluemobile.Status
import io.cluemobile.ToyTest
import io.cluemobile.TransitionException
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** The states of a request, and what a request may ask. */
internal class RequestsTest : ToyTest() {
    private val requests get() = toy.store.store.requests

    @Test
    fun `only the transitions of the picture are possible`() {
        toy.add("cat", 2)
        val id = toy.submit()
        for (from in Status.entries) {
            for (to in Status.entries) {
                toy.store.store.database.execute("UPDATE requests SET status = ?, reason = 'kept' WHERE id = ?", from.word, id)
                if (from in TRANSITIONS[to].orEmpty()) {
                    requests.move(id, to)
                    assertEquals(to, requests.get(id).status)
                } else {
                    val error = assertThrows(TransitionException::class.java) { requests.move(id, to, mapOf("reason" to "new")) }
                    assertTrue(from.word in error.message!! && to.word in error.message!!, error.message)
                    assertEquals(from to "kept", requests.get(id).let { it.status to it.reason })
                }
            }
        }
    }

    @Test
    fun `a request that cannot be leaves nothing`() {
        toy.add("cat", 3)
        val first = requests.create(new(listOf(1, 2)))
        val cases = listOf(
            new(emptyList()) to "at least one",
            new(listOf(3, 3)) to "twice",
            new(listOf(3, 99)) to "99",
            new(listOf(3, 2)) to "request $first",
            new(listOf(3), label = 1) to "label 0",
        )
        for ((wrong, word) in cases) {
            val error = assertThrows(ClueException::class.java) { requests.create(wrong) }
            assertTrue(word in error.message!!, error.message)
        }
        assertEquals(1, requests.all().size)
        assertEquals(2L, toy.store.store.database.long("SELECT count(*) FROM request_samples"))
        toy.store.store.cancel(first)
        requests.create(new(listOf(1, 2)))
    }

    private fun new(samples: List<Long>, label: Int = 0) =
        NewRequest("class", label, "cat", 7, mapOf("lr" to 0.5), Options(maxSeconds = 2.5), samples)

    @Test
    fun `one request runs at a time`() {
        toy.add("cat", 3)
        val (one, other) = List(2) { requests.create(new(listOf(it + 1L))) }
        requests.begin(one, 1)
        assertThrows(ClueException::class.java) { requests.begin(other, 1) }
        assertEquals(Status.QUEUED, requests.get(other).status)
    }

    @Test
    fun `a request whose process died is paused, one that was to be cancelled is cancelled`() {
        toy.add("cat", 3)
        val (one, other) = List(2) { requests.create(new(listOf(it + 1L))) }
        requests.begin(one, 1)
        assertEquals(Status.PAUSED, toy.store.store.statusNow(one))
        assertEquals(INTERRUPTED, requests.get(one).reason)
        requests.begin(other, 1)
        assertTrue(requests.askCancel(other))
        assertTrue(requests.cancelAsked(other))
        toy.reopen()
        assertEquals(Status.CANCELLED, toy.store.request(other).status)
    }

    @Test
    fun `what is frozen comes back`() {
        toy.add("cat", 3)
        val options = Options(1.0, 2.0, null, 70.5, 9, 4.0, null, 0.25, true)
        val id = requests.create(NewRequest("class", 0, "cat", (1L shl 53) - 1, mapOf("lr" to 1e-5, "b" to 2.0), options, listOf(2, 1)))
        val found = requests.get(id)
        assertEquals(options, found.options)
        assertEquals(mapOf("b" to 2.0, "lr" to 1e-5), found.scalars)
        assertEquals((1L shl 53) - 1, found.seed)
        assertEquals(listOf(2L, 1L), requests.samples(id))
    }

    @Test
    fun `options out of range are refused`() {
        val wrong = listOf(
            mapOf("accuracy_at_most" to 101L), mapOf("accuracy_at_most" to -0.5), mapOf("stop_accuracy" to 100.5),
            mapOf("max_seconds" to 0L), mapOf("max_joules" to -1L), mapOf("max_celsius" to 0L), mapOf("max_celsius" to 121L),
            mapOf("checkpoint_steps" to 0L), mapOf("checkpoint_steps" to 1.5), mapOf("holdout" to 0.6),
            mapOf("max_seconds" to "2"), mapOf("other" to 1L),
        )
        for (given in wrong) assertThrows(ClueException::class.java, { Options.of(given) }, given.toString())
        assertEquals(Options(), Options.of(emptyMap()))
    }
}
