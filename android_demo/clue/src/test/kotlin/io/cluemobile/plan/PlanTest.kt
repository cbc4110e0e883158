package io.cluemobile.plan

import io.cluemobile.ClueException
import io.cluemobile.random.permutation
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** A plan is a fixed sequence of numbered operations: how it goes on from any of them is how it went. */
class PlanTest {
    private fun run(name: String) = RunNode(name, emptyMap(), emptyList())

    private fun fixed(value: Double) = Number.Fixed(value)

    private val stop = StopNode("predict", Number.Scalar("every"), 4, fixed(10.0))
    private val plan = listOf(
        Phase("first", listOf(ResetNode(listOf("a")))),
        Epochs(
            Number.Scalar("epochs"),
            listOf(
                Repeat(
                    fixed(2.0),
                    listOf(
                        Batches(4, null, true, listOf(Batches(2, null, null, listOf(run("inner"))), run("outer"))),
                        Repeat(fixed(3.0), listOf(ResetNode(listOf("b")))),
                    ),
                ),
                Batches(4, false, null, listOf(stop)),
            ),
        ),
        run("last"),
    )
    private val scalars = mapOf("epochs" to 2.4, "every" to 2.0)
    private val n = 6

    private fun operations(start: Long = 0) = PlanWalk(plan, n, scalars, seed = 3).operations(start).toList()

    private fun told(operation: Operation): String {
        val node = when (operation) {
            is Run -> operation.node.program
            is Reset -> operation.node.values.single()
            is Stop -> "stop ${operation.due} ${operation.leaveTo}"
        }
        val place = operation.place
        return "${operation.number} ${place.phase} ${place.epoch} ${place.repeat} ${place.positions?.toList()} ${place.augment} $node"
    }

    @Test
    fun `operations are numbered without a gap and as many as are planned`() {
        val all = operations()
        // One reset; each of two epochs: twice (two batches of two inner runs and one outer, three resets), two stops; one run.
        assertEquals(1 + 2 * (2 * (2 * 3 + 3) + 2) + 1, all.size)
        assertEquals(all.indices.map { it.toLong() }, all.map { it.number })
        assertEquals(all.size.toLong(), PlanSize(n, scalars).total(plan))
    }

    @Test
    fun `from any number on it goes on as it went`() {
        val all = operations().map(::told)
        for (start in 0L..all.size) assertEquals(all.drop(start.toInt()), operations(start).map(::told))
    }

    @Test
    fun `batches are filled cyclically from the epoch's order, inner ones cut the outer`() {
        val order = permutation(3, 1, n)
        val runs = operations().filterIsInstance<Run>().filter { it.place.epoch == 1 && it.place.repeat == 0L }
        val outer = runs.filter { it.node.program == "outer" }.map { it.place.positions!! }
        assertArrayEquals(order.copyOf(4), outer[0])
        assertArrayEquals(intArrayOf(order[4], order[5], order[0], order[1]), outer[1])
        val inner = runs.filter { it.node.program == "inner" }.map { it.place.positions!!.toList() }
        assertEquals(outer.flatMap { it.toList().chunked(2) }, inner)
        assertTrue(runs.all { it.place.augment })
    }

    @Test
    fun `repeats count on, stops are due each so often and leave the epochs`() {
        val all = operations()
        val counts = all.filterIsInstance<Reset>().filter { it.node.values == listOf("b") && it.place.epoch == 0 }.map { it.place.repeat }
        assertEquals((0L..5L).toList(), counts)
        val stops = all.filterIsInstance<Stop>()
        assertEquals(listOf(false, true, false, true), stops.map { it.due })
        assertEquals(listOf(0, 1, 2, 3), stops[0].place.positions!!.toList())
        assertTrue(stops.all { it.leaveTo == all.size - 1L })
        val never = PlanWalk(plan, n, scalars + ("every" to 0.0), 3).operations(0).filterIsInstance<Stop>()
        assertTrue(never.none { it.due })
    }

    @Test
    fun `an epoch ends where a checkpoint goes`() {
        val sizes = PlanSize(n, scalars)
        val epoch = 2 * (2 * 3 + 3) + 2L
        val ends = (0..operations().size.toLong()).filter { sizes.epochEnd(plan, it) != null }
        assertEquals(listOf(1 + epoch, 1 + 2 * epoch), ends)
        for (end in ends) assertEquals(1 + 2 * epoch, sizes.epochEnd(plan, end))
    }

    @Test
    fun `counts are rounded halves up and never below 0`() {
        val sizes = PlanSize(n, scalars)
        for ((given, whole) in listOf(0.5 to 1L, 0.49 to 0L, 1.5 to 2L, 2.5 to 3L, -7.0 to 0L)) {
            assertEquals(whole, sizes.whole(fixed(given)))
        }
        assertThrows(ClueException::class.java) { sizes.whole(fixed(Double.NaN)) }
        assertThrows(ClueException::class.java) { sizes.resolve(Number.Scalar("none")) }
        val huge = Epochs(fixed(1e15), listOf(Repeat(fixed(1e15), listOf(run("x")))))
        assertThrows(ClueException::class.java) { sizes.total(listOf(huge)) }
        assertNull(PlanSize(n, mapOf("epochs" to 0.0, "every" to 1.0)).epochEnd(plan, 1))
    }

    @Test
    fun `every program is told once for each place, and predict verifies`() {
        assertEquals(
            listOf("" to "inner", "" to "outer", "" to "predict", "" to "last", "verify" to "predict"),
            programsOf(plan),
        )
    }
}
