package io.cluemobile.request

import io.cluemobile.BusyException
import io.cluemobile.Classifier
import io.cluemobile.ClueException
import io.cluemobile.ForgetRequest
import io.cluemobile.ForgottenChoice
import io.cluemobile.Options
import io.cluemobile.Progress
import io.cluemobile.Status
import io.cluemobile.ToyTest
import io.cluemobile.TransitionException
import io.cluemobile.Unlearner
import io.cluemobile.answer
import io.cluemobile.run.Recording
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test

/** The public way to forget: flows of progress that can be cancelled, the queue, estimates, answers. */
internal class UnlearnerTest : ToyTest() {
    private val cats = ForgetRequest.ofClass("cat", seed = 5)

    @BeforeEach
    fun fill() {
        toy.add()
    }

    /** A request that takes long enough for a test to come between; its steps are small, so that nothing becomes infinite. */
    private val long = ForgetRequest.ofClass("cat", 5, mapOf("epochs" to 100_000.0, "check_every" to 0.0, "lr" to 1e-9))

    @Test
    fun `a flow tells every operation, the accuracies and the end`() = runBlocking {
        val told = toy.unlearner.forget(cats).toList()
        val steps = told.filterIsInstance<Progress.Step>()
        assertEquals(steps.map { it.done }, steps.map { it.done }.sorted())
        assertTrue(steps.any { "loss" in it.metrics })
        val accuracies = told.filterIsInstance<Progress.ForgetAccuracy>()
        val end = (told.last() as Progress.Ended).result
        assertEquals(listOf(null, end.evidence["forget_accuracy_before"]), accuracies.first().let { listOf(it.epoch, it.percent) })
        assertEquals(end.evidence["forget_accuracy_after"], accuracies.last().percent)
        assertEquals((end.evidence.getValue("epochs_run") as Number).toInt() - 1, accuracies.last().epoch)
        assertEquals(Status.DONE, end.status)
        assertEquals(listOf(2L, 1L), listOf(end.generation, end.id))
        assertEquals(listOf("teach", "learn", "verify", "finish", "request"), end.records.map { it.phase })
        assertEquals(toy.store.costs.of(1), end.records)
    }

    @Test
    fun `a flow does nothing until it is collected`() {
        toy.unlearner.forget(cats)
        assertTrue(toy.store.requests().isEmpty())
    }

    @Test
    fun `who cancels the collecting pauses the request, and it goes on to the same weights`() = runBlocking {
        toy.unlearner.forget(cats).collect()
        val wanted = toy.store.serving().sha256
        toy.unlearner.rollback(1)
        val slow = Recording(toy.engine) { _, _, _ -> Thread.sleep(20) } // else the request may end before the collector has seen four
        val started = Unlearner(toy.store, slow).forget(cats).first { it is Progress.Step && it.done == 4L }
        val request = toy.store.request(started.request)
        assertEquals(Status.PAUSED to STOPPED, request.status to request.reason)
        assertEquals(request.id, toy.unlearner.next())
        toy.reopen()
        val result = (toy.unlearner.resume(request.id).toList().last() as Progress.Ended).result
        assertEquals(Status.DONE, result.status)
        assertEquals(wanted, toy.store.serving().sha256)
        assertEquals(null, toy.unlearner.next())
    }

    @Test
    fun `a running request is cancelled, and others are busy meanwhile`() = runBlocking {
        val id = toy.unlearner.submit(long)
        val running = async(Dispatchers.Default) { toy.unlearner.run(id).toList() }
        while (toy.store.request(id).status != Status.RUNNING) Thread.sleep(5)
        assertThrows(BusyException::class.java) { runBlocking { toy.unlearner.forget(cats).collect() } }
        assertThrows(BusyException::class.java) { toy.unlearner.rollback(1) }
        assertEquals(1, toy.store.requests().size)
        // Who only looks is not held up.
        Classifier(toy.store, toy.engine).use { it.predict(toy.images.of("cat").take(3)) }
        assertFalse(toy.unlearner.cancel(id))
        assertEquals(Status.CANCELLED, (running.await().last() as Progress.Ended).result.status)
        assertThrows(TransitionException::class.java) { toy.unlearner.cancel(id) }
        assertEquals(1L, toy.store.serving().id)
    }

    @Test
    fun `a cancelled coroutine has paused when it has ended`() = runBlocking {
        val id = toy.unlearner.submit(long)
        val job = launch(Dispatchers.Default) { toy.unlearner.run(id).collect() }
        while (toy.store.request(id).status != Status.RUNNING) Thread.sleep(5)
        job.cancelAndJoin()
        assertEquals(Status.PAUSED, toy.store.request(id).status)
    }

    @Test
    fun `what cannot be run is an error of the flow`() {
        val id = toy.submit()
        toy.unlearner.cancel(id)
        for (flow in listOf(toy.unlearner.run(id), toy.unlearner.resume(id), toy.unlearner.run(99))) {
            assertThrows(ClueException::class.java) { runBlocking { flow.collect() } }
        }
        for (wrong in listOf(
            ForgetRequest.ofClass("owl"), ForgetRequest.ofClass("dog"), ForgetRequest.ofClass("cat", seed = -1),
            ForgetRequest.ofClass("cat", scalars = mapOf("speed" to 1.0)), ForgetRequest.ofSamples(emptyList()),
            ForgetRequest.ofSamples(listOf(1), options = Options(holdout = 0.5)),
            ForgetRequest.ofClass("cat", options = Options(maxJoules = 5.0)),
        )) {
            assertThrows(ClueException::class.java) { toy.unlearner.submit(wrong) }
        }
        assertEquals(1, toy.store.requests().size)
    }

    @Test
    fun `an estimate comes from the records of this device`() {
        val before = toy.unlearner.estimate(cats)
        assertEquals(listOf(19, null, null), listOf(before.samples, before.seconds, before.joules))
        assertTrue(before.plannedPeakBytes > 0 && before.operations > 0)
        toy.run(toy.submit())
        val after = toy.unlearner.estimate(cats)
        val measured = toy.store.costs.all().filter { it.phase != "request" }.sumOf { it.seconds }
        assertTrue(after.seconds!! >= measured * 0.99, "$after, measured $measured")
        assertTrue("request 1" in after.timeSource)
        assertEquals(before.operations, after.operations)
    }

    @Test
    fun `a forgotten class is told, hidden or rejected`() {
        toy.run(toy.submit())
        Classifier(toy.store, toy.engine).use { classifier ->
            val images = toy.images.of("cat").take(7)
            val logits = classifier.logits(images)
            assertEquals(listOf(7, 3), listOf(logits.size, logits[0].size))
            for (choice in ForgottenChoice.entries) {
                classifier.predict(images, choice).forEachIndexed { i, answer ->
                    val best = logits[i].indices.maxBy { logits[i][it] }
                    when (choice) {
                        ForgottenChoice.TELL -> assertEquals(best to (best == 0), answer.label to answer.forgotten)
                        ForgottenChoice.HIDE -> assertTrue(answer.label != 0 && !answer.forgotten)
                        ForgottenChoice.REJECT -> assertEquals(if (best == 0) null else best, answer.label)
                    }
                }
            }
        }
    }

    @Test
    fun `answers are the softmax, the first of equal ones is the best`() {
        val classes = listOf("a", "b", "c")
        val told = answer(floatArrayOf(1f, 2f, 2f), classes, setOf(1), ForgottenChoice.TELL)
        assertEquals(listOf<Any?>(1, "b", true), listOf(told.label, told.name, told.forgotten))
        assertEquals(1 / (2 + Math.exp(-1.0)), told.probability!!, 1e-15)
        val hidden = answer(floatArrayOf(1f, 2f, 2f), classes, setOf(1), ForgottenChoice.HIDE)
        assertEquals(1 / (1 + Math.exp(-1.0)), hidden.probability!!, 1e-15)
        assertEquals("c", hidden.name)
        assertEquals(null, answer(floatArrayOf(1f, 2f, 2f), classes, setOf(1), ForgottenChoice.REJECT).name)
    }
}
