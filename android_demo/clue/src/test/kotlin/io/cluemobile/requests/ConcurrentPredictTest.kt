package io.cluemobile.requests

import io.cluemobile.Classifier
import io.cluemobile.Contract
import io.cluemobile.Status
import io.cluemobile.Unlearner
import io.cluemobile.bundle.ClueBundle
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.atomic.AtomicBoolean
import kotlin.concurrent.thread

/** Whoever predicts while new weights are swapped in sees the old ones or the new ones, whole. */
class ConcurrentPredictTest {
    @TempDir
    lateinit var folder: Path

    private fun bits(logits: List<FloatArray>): List<Int> = logits.flatMap { row -> row.map { it.toRawBits() } }

    @Test
    fun `predictions during requests and rollbacks are those of one generation each`() {
        val bundle = ClueBundle.open(Contract.toy(folder))
        val images = toyImages("dog", 5)
        openStore(folder.resolve("store"), bundle).use { store ->
            store.add(toyImages("cat", 10), "cat")
            val unlearner = Unlearner(store, engine())
            val classifiers = List(2) { Classifier(store, engine()) }
            val seen = List(3) { ConcurrentLinkedQueue<List<Int>>() }
            val errors = ConcurrentLinkedQueue<Throwable>()
            val over = AtomicBoolean(false)
            val known = mutableListOf(bits(classifiers[0].logits(images)))
            val threads = seen.mapIndexed { i, queue ->
                thread {
                    // Two threads share a classifier.
                    try {
                        while (!over.get()) queue += bits(classifiers[i % 2].logits(images))
                    } catch (error: Throwable) {
                        errors += error
                    }
                }
            }
            try {
                repeat(3) {
                    val result = unlearner.forget(longRequest(3 + it)).result()
                    assertEquals(Status.DONE, result.status, result.reason)
                    known += bits(classifiers[0].logits(images))
                    unlearner.rollback(1)
                    assertEquals(known[0], bits(classifiers[0].logits(images)))
                }
            } finally {
                over.set(true)
                threads.forEach { it.join() }
                classifiers.forEach { it.close() }
            }
            assertTrue(errors.isEmpty()) { errors.joinToString() }
            assertEquals(4, known.toSet().size, "each request gives other weights")
            for (queue in seen) {
                assertTrue(queue.isNotEmpty() && known.containsAll(queue.toSet())) { "a prediction was of no generation" }
                assertTrue(known[0] in queue)
            }
            println("${seen.sumOf { it.size }} predictions during 3 swaps and 3 rollbacks, each of one generation")
        }
    }
}
