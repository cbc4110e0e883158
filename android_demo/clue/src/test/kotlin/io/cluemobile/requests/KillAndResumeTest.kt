package io.cluemobile.requests

import io.cluemobile.Contract
import io.cluemobile.Options
import io.cluemobile.Status
import io.cluemobile.Unlearner
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.jvm.Main
import io.cluemobile.startChild
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.random.Random

private const val KILLS = 30
private const val EPOCHS = 100
private const val KILLED = 128 + 9
private const val MOST_LINES = 60
private const val MOST_MILLISECONDS = 60L

/** A process that works on a request is destroyed (SIGKILL) at random moments; the request ends as if nothing had happened. */
class KillAndResumeTest {
    @TempDir
    lateinit var folder: Path
    private val random = Random(System.getProperty("clue.kill.seed")?.toInt() ?: 7)

    @Test
    fun `thirty processes are killed and the request ends with the same bits`() {
        val bundle = ClueBundle.open(Contract.toy(folder))
        val options = Options(accuracyAtMost = 100.0, checkpointSteps = 3)
        val (undisturbed, evidence) = openStore(folder.resolve("calm"), bundle).use { store ->
            store.add(toyImages("cat", 10), "cat")
            val result = Unlearner(store, engine()).forget(longRequest(EPOCHS, options)).result()
            assertEquals(Status.DONE, result.status, result.reason)
            store.serving().sha256 to store.request(result.id).evidence
        }
        val stormy = folder.resolve("stormy")
        openStore(stormy, bundle).use { store ->
            store.add(toyImages("cat", 10), "cat")
            Unlearner(store, engine()).submit(longRequest(EPOCHS, options))
        }
        var furthest = 0L
        var startedAnew = 0
        repeat(KILLS) {
            val done = killAtRandom(bundle.root, stormy)
            openStore(stormy, bundle).use { store ->
                val request = store.request(1)
                assertTrue(request.status in setOf(Status.QUEUED, Status.PAUSED), "kill $it: ${request.status} ${request.reason}")
                if (request.status == Status.PAUSED) assertEquals("interrupted", request.reason)
                assertEquals(1, store.serving().id, "the old weights serve")
            }
            if (done != null && done < furthest / 2) startedAnew++
            furthest = maxOf(furthest, done ?: 0)
        }
        openStore(stormy, bundle).use { store ->
            val unlearner = Unlearner(store, engine())
            val result = unlearner.run(checkNotNull(unlearner.next())).result()
            assertEquals(Status.DONE, result.status, result.reason)
            assertEquals(undisturbed, store.serving().sha256)
            assertEquals(evidence, store.request(1).evidence)
            println("$KILLS processes were killed, the last ones after $furthest operations; the weights are bit-identical")
        }
        assertTrue(furthest > EPOCHS, "the request came on between kills")
        assertEquals(0, startedAnew, "a request that has a checkpoint goes on from it")
    }

    /** Let a process work on the store and kill it after some operations and some milliseconds more; the last operation it told. */
    private fun killAtRandom(bundle: Path, store: Path): Long? {
        val process = startChild(Main::class.java, "run", bundle.toString(), store.toString())
        val lines = random.nextInt(MOST_LINES)
        var last: Long? = null
        if (lines > 0) {
            val reader = process.inputStream.bufferedReader()
            repeat(lines) { reader.readLine()?.substringBefore('/')?.toLongOrNull()?.let { last = it } }
        }
        Thread.sleep(random.nextLong(MOST_MILLISECONDS) * if (lines > 0) 1 else 10)
        process.destroyForcibly()
        assertEquals(KILLED, process.waitFor(), "the process was to be killed and ended by itself after $last operations")
        return last
    }
}
