package io.cluemobile.requests

import io.cluemobile.Contract
import io.cluemobile.ForgetStore
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
    fun `thirty processes are killed and each request ends with the same bits`() {
        val bundle = ClueBundle.open(Contract.toy(folder))
        val (undisturbed, evidence) = submitted("calm", bundle).use { store ->
            val result = Unlearner(store, engine()).run(1).result()
            assertEquals(Status.DONE, result.status, result.reason)
            store.serving().sha256 to store.request(1).evidence
        }
        var kills = 0
        var storms = 0
        var furthest = 0L
        while (kills < KILLS) {
            // a fast machine may end the request before thirty kills: the next request takes the rest of them
            val name = "storm${storms++}"
            submitted(name, bundle).close()
            val storm = killUntilDone(bundle, name, KILLS - kills)
            kills += storm.kills
            assertTrue(storms <= KILLS, "hardly any process was killed: $kills in $storms requests")
            furthest = maxOf(furthest, storm.furthest)
            openStore(folder.resolve(name), bundle).use { store ->
                val unlearner = Unlearner(store, engine())
                unlearner.next()?.let { assertEquals(Status.DONE, unlearner.run(it).result().status) }
                assertEquals(Status.DONE, store.request(1).status, store.request(1).reason)
                assertEquals(undisturbed, store.serving().sha256)
                assertEquals(evidence, store.request(1).evidence)
            }
        }
        println("$KILLS processes of $storms requests were killed, as late as after $furthest operations; the weights are bit-identical")
        assertTrue(furthest > EPOCHS, "the request came on between kills")
    }

    /** A new store with one queued request. */
    private fun submitted(name: String, bundle: ClueBundle): ForgetStore {
        val store = openStore(folder.resolve(name), bundle)
        store.add(toyImages("cat", 10), "cat")
        Unlearner(store, engine()).submit(longRequest(EPOCHS, Options(accuracyAtMost = 100.0, checkpointSteps = 3)))
        return store
    }

    private class Storm(val kills: Int, val furthest: Long)

    /** Kill processes that work on the store's request, until one ends it before it is killed or [most] are killed. */
    private fun killUntilDone(bundle: ClueBundle, name: String, most: Int): Storm {
        var furthest = 0L
        repeat(most) {
            val (done, killed) = killAtRandom(bundle.root, folder.resolve(name))
            assertTrue(done == null || done >= furthest / 2, "kill $it: it goes on from its checkpoint, not from $done of $furthest")
            furthest = maxOf(furthest, done ?: 0)
            if (!killed) return Storm(it, furthest)
            openStore(folder.resolve(name), bundle).use { store ->
                val request = store.request(1)
                if (request.status == Status.DONE) return Storm(it + 1, furthest) // killed between its last write and its exit
                assertTrue(request.status in setOf(Status.QUEUED, Status.PAUSED), "kill $it: ${request.status} ${request.reason}")
                if (request.status == Status.PAUSED) assertEquals("interrupted", request.reason)
                assertEquals(1, store.serving().id, "the old weights serve")
            }
        }
        return Storm(most, furthest)
    }

    /** Let a process work on the store and kill it after some operations and some milliseconds more: the last operation it told, and
     * whether the kill came before its end. */
    private fun killAtRandom(bundle: Path, store: Path): Pair<Long?, Boolean> {
        val process = startChild(Main::class.java, "run", bundle.toString(), store.toString())
        val lines = random.nextInt(MOST_LINES)
        var last: Long? = null
        if (lines > 0) {
            val reader = process.inputStream.bufferedReader()
            repeat(lines) { reader.readLine()?.substringBefore('/')?.toLongOrNull()?.let { last = it } }
        }
        Thread.sleep(random.nextLong(MOST_MILLISECONDS) * if (lines > 0) 1 else 10)
        process.destroyForcibly()
        val code = process.waitFor()
        assertTrue(code in setOf(KILLED, 0), "the process was neither killed nor done, but ended with $code after $last operations")
        return last to (code == KILLED)
    }
}
