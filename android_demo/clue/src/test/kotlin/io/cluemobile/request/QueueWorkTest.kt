package io.cluemobile.request

import io.cluemobile.ForgetRequest
import io.cluemobile.Options
import io.cluemobile.RequestResult
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.ToyTest
import io.cluemobile.Unlearner
import io.cluemobile.WorkState
import io.cluemobile.engine.Engine
import io.cluemobile.requests.pauseAfter
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.launch
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test

/** Carrying out the queue for services and workers: one at a time, and no request holds up the others. */
internal class QueueWorkTest : ToyTest() {
    private val logged = mutableListOf<Exception>()
    private val work = QueueWork { logged += it }

    @BeforeEach
    fun fill() {
        toy.add()
        toy.add("dog")
    }

    private fun status(id: Long): Status = toy.store.request(id).status

    private fun waitForRun(id: Long) {
        while (status(id) != Status.RUNNING) Thread.sleep(5)
    }

    /** A request that takes long enough for a test to come between; its steps are small, so that nothing becomes infinite. */
    private fun submitLong(): Long =
        toy.unlearner.submit(ForgetRequest.ofClass("cat", 5, mapOf("epochs" to 100_000.0, "check_every" to 0.0, "lr" to 1e-9)))

    private fun evidence(result: RequestResult, name: String): Any? = result.evidence[name]

    @Test
    fun `a refused request does not hold up the next one, and stays`() = runTest {
        val refused = toy.submit()
        toy.store.pauseAfter(refused, operations = 4, toy.engine)
        val next = toy.submit("dog", Options(accuracyAtMost = 100.0))
        val updated = object : Engine by toy.engine {
            override val version = "0.0.1"
        }
        assertFalse(work.run(wait = false) { Unlearner(toy.store, updated) })
        assertEquals(listOf(Status.PAUSED, Status.DONE), listOf(status(refused), status(next)))
        val state = work.state.value
        assertEquals(next, state.ended!!.id)
        assertTrue("request $refused: " in state.problem!! && "0.0.1" in state.problem!!, state.problem)
        assertFalse(state.running)
        // with the engine and the weights that it began with it goes on
        toy.unlearner.rollback(1)
        assertFalse(work.run(wait = false) { toy.unlearner })
        assertEquals(Status.DONE, status(refused))
        assertEquals(null, work.state.value.problem)
    }

    @Test
    fun `a paused request does not hold up the next one`() = runTest {
        val paused = toy.submit("cat", Options(maxSeconds = 1e-9))
        val next = toy.submit("dog", Options(accuracyAtMost = 100.0))
        // over budget waits for the user, so nothing is left for later
        assertFalse(work.run(wait = false) { toy.unlearner })
        assertEquals(listOf(Status.PAUSED, Status.DONE), listOf(status(paused), status(next)))
    }

    @Test
    fun `a second one returns at once or waits for its turn, as it chooses`() = runTest {
        val id = submitLong()
        val first = launch(Dispatchers.Default) { work.run(wait = false) { toy.unlearner } }
        waitForRun(id)
        assertTrue(work.run(wait = false) { error("it is not its turn") })
        val second = async(Dispatchers.Default) { work.run(wait = true) { toy.unlearner } }
        first.cancelAndJoin()
        waitForRun(id)
        assertFalse(toy.unlearner.cancel(id))
        assertFalse(second.await())
        assertEquals(Status.CANCELLED, work.state.value.ended!!.status)
        assertEquals(emptyList<Exception>(), logged)
    }

    @Test
    fun `who looks late has every accuracy and the end`() = runTest {
        toy.submit("dog", Options(accuracyAtMost = 100.0))
        val id = toy.submit("cat", Options(accuracyAtMost = 100.0, stopAccuracy = 0.0))
        assertFalse(work.run(wait = false) { toy.unlearner })
        val state = work.state.value
        val ended = state.ended!!
        assertEquals(id to Status.DONE, ended.id to ended.status)
        val stops = (evidence(ended, "stops") as List<*>).map { (it as Map<*, *>)["accuracy"] }
        assertTrue(stops.isNotEmpty())
        val wanted = listOf(evidence(ended, "forget_accuracy_before")) + stops + evidence(ended, "forget_accuracy_after")
        assertEquals(wanted, state.accuracies)
        assertEquals(WorkState(accuracies = state.accuracies, ended = ended), state)
    }

    @Test
    fun `what time may mend is tried again, what nobody expected is logged`() = runTest {
        assertTrue(work.run(wait = false) { throw StorageException("the disk is full") })
        assertEquals("the disk is full", work.state.value.problem)
        assertFalse(work.run(wait = false) { throw IllegalArgumentException("a slip") })
        assertTrue("a slip" in work.state.value.problem!!)
        assertEquals(listOf("a slip"), logged.map { it.message })
    }
}
