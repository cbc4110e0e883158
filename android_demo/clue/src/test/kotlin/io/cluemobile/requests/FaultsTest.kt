package io.cluemobile.requests

import io.cluemobile.Classifier
import io.cluemobile.ClueException
import io.cluemobile.Contract
import io.cluemobile.EngineException
import io.cluemobile.NoSpaceException
import io.cluemobile.Options
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.Unlearner
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.engine.Engine
import io.cluemobile.run.Recording
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.yield
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.io.path.createSymbolicLinkPointingTo
import kotlin.io.path.exists
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes

/** What breaks while a request runs is told, and the old weights go on serving: nothing that was stored is lost. */
class FaultsTest {
    @TempDir
    lateinit var folder: Path
    private lateinit var bundle: ClueBundle
    private val store: Path get() = folder.resolve("store")

    @BeforeEach
    fun fill() {
        bundle = ClueBundle.open(Contract.toy(folder))
        openStore(store, bundle).use { it.add(toyImages("cat", 10), "cat") }
    }

    /** The old weights serve, the samples are there, and the same request succeeds afterwards. */
    private fun nothingIsLost(status: Status, reason: String, seed: Long = 5) {
        openStore(store, bundle).use { opened ->
            val request = opened.requests().last()
            assertEquals(status, request.status)
            assertTrue(reason in request.reason.orEmpty(), request.reason)
            assertEquals(1, opened.serving().id)
            assertEquals(mapOf("cat" to 10), opened.counts())
            Classifier(opened, engine()).use { assertEquals(1, it.predict(toyImages("dog", 1)).size) }
            val unlearner = Unlearner(opened, engine())
            assertEquals(Status.DONE, unlearner.run(unlearner.retryOrResume(request.id, status, seed)).result().status)
            assertEquals(2, opened.serving().id)
        }
    }

    private fun Unlearner.retryOrResume(id: Long, status: Status, seed: Long): Long = if (status == Status.PAUSED) id else retry(id, seed)

    private fun forget(engine: Engine, options: Options = Options(accuracyAtMost = 100.0)) =
        openStore(store, bundle).use { Unlearner(it, engine).forget(longRequest(4, options)).result() }

    @Test
    fun `a program that fails half way`() {
        var runs = 0
        val failing = Recording(engine()) { program, _, _ -> if (++runs == 20) throw EngineException("program ${program.name} failed") }
        assertThrows(EngineException::class.java) { forget(failing) }
        nothingIsLost(Status.FAILED, "failed")
    }

    @Test
    fun `a program that needs more memory than there is`() {
        var runs = 0
        val failing = Recording(engine()) { _, _, _ -> if (++runs == 20) throw OutOfMemoryError("Java heap space") }
        assertThrows(EngineException::class.java) { forget(failing) }
        nothingIsLost(Status.FAILED, "needs more memory than")
    }

    @Test
    fun `metrics and weights that are not finite`() {
        var runs = 0
        val wrong = Recording(engine()) { program, _, outputs ->
            if (program.name == "step" && ++runs == 5) outputs.getValue("loss")[0] = Float.NaN
        }
        assertEquals(Status.FAILED, forget(wrong).status)
        nothingIsLost(Status.FAILED, "nan")
    }

    @Test
    fun `an accuracy that did not come down`() {
        val result = forget(engine(), Options(accuracyAtMost = 0.0))
        assertEquals(Status.FAILED, result.status)
        assertTrue("forget accuracy is 100.0 %" in result.reason.orEmpty(), result.reason)
        openStore(store, bundle).use { assertEquals(1, it.serving().id) }
    }

    /** The temporary file of [name] leads to a device that is always full. */
    private fun leadToFullDisk(name: String) {
        store.resolve("$name.part").createSymbolicLinkPointingTo(Path.of("/dev/full"))
    }

    @Test
    fun `no space for a checkpoint`() {
        assumeTrue(Path.of("/dev/full").exists(), "this system has no /dev/full")
        openStore(store, bundle).use { opened ->
            val id = Unlearner(opened, engine()).submit(longRequest(4))
            assertThrows(NoSpaceException::class.java) {
                opened.runWith(id, operations = 2) { leadToFullDisk("checkpoints/000001.safetensors") }
            }
        }
        nothingIsLost(Status.FAILED, "No space left")
    }

    @Test
    fun `no space for the new weights`() {
        assumeTrue(Path.of("/dev/full").exists(), "this system has no /dev/full")
        openStore(store, bundle).use { opened ->
            val id = Unlearner(opened, engine()).submit(longRequest(2))
            assertThrows(NoSpaceException::class.java) {
                opened.runWith(id, operations = 2) { leadToFullDisk("generations/000002.safetensors") }
            }
        }
        nothingIsLost(Status.FAILED, "No space left")
    }

    @Test
    fun `weights that were changed on the disk are not used`() {
        val weights = store.resolve("generations/000001.safetensors")
        val content = weights.readBytes()
        weights.writeBytes(content.copyOf().apply { this[size - 1] = (this[size - 1] + 1).toByte() })
        openStore(store, bundle).use { opened ->
            Classifier(opened, engine()).use { classifier ->
                val error = assertThrows(StorageException::class.java) { classifier.predict(toyImages("dog", 1)) }
                assertTrue("changed" in error.message.orEmpty())
            }
        }
        assertThrows(StorageException::class.java) { forget(engine()) }
        weights.writeBytes(content)
        nothingIsLost(Status.FAILED, "changed")
    }

    @Test
    fun `a damaged program is told when it is loaded`() {
        val step = bundle.file("programs/onnx/step.onnx")
        val content = step.readBytes()
        step.writeBytes(content.copyOf(content.size / 2) + ByteArray(content.size - content.size / 2))
        assertThrows(EngineException::class.java) { forget(engine()) }
        assertThrows(ClueException::class.java) { ClueBundle.open(bundle.root) }
        step.writeBytes(content)
        nothingIsLost(Status.FAILED, "cannot load")
    }

    @Test
    fun `a damaged checkpoint is left aside and the request starts again`() {
        val calm = forget(engine()).let { openStore(store, bundle).use { it.serving().sha256 } }
        openStore(store, bundle).use { opened ->
            val unlearner = Unlearner(opened, engine())
            unlearner.rollback(1)
            opened.pauseAfter(unlearner.submit(longRequest(4)), operations = 30)
        }
        val checkpoint = store.resolve("checkpoints/000002.safetensors")
        assertTrue(checkpoint.exists())
        checkpoint.writeBytes(checkpoint.readBytes().apply { this[size / 2] = (this[size / 2] + 1).toByte() })
        openStore(store, bundle).use { opened ->
            assertEquals(Status.PAUSED, opened.request(2).status)
            assertEquals(Status.DONE, Unlearner(opened, engine()).resume(2).result().status)
            assertEquals(calm, opened.serving().sha256)
        }
    }

    @Test
    fun `a request that another engine, version or thread count began is refused and stays`() {
        openStore(store, bundle).use { opened ->
            opened.pauseAfter(Unlearner(opened, engine()).submit(longRequest(4)), operations = 25)
            val other = object : Engine by engine() {
                override val version = "0.0.1"
            }
            val threads = object : Engine by engine() {
                override val threads = 4
            }
            for ((engine, word) in listOf(other to "0.0.1", threads to "this has 4")) {
                val error = assertThrows(ClueException::class.java) { Unlearner(opened, engine).resume(1).result() }
                assertTrue(word in error.message.orEmpty(), error.message)
                assertEquals(Status.PAUSED, opened.request(1).status)
            }
        }
        nothingIsLost(Status.PAUSED, "stopped")
    }

    @Test
    fun `cancelling the collector pauses, cancelling the request ends it`() {
        openStore(store, bundle).use { opened ->
            val unlearner = Unlearner(opened, engine())
            runBlocking {
                val job = launch { unlearner.forget(longRequest(400)).collect() }
                while (opened.requests().none { it.status == Status.RUNNING }) yield()
                job.cancelAndJoin()
            }
            assertEquals(Status.PAUSED, opened.request(1).status)
            assertTrue(unlearner.cancel(1))
            assertEquals(Status.CANCELLED, opened.request(1).status)
            assertEquals(1, opened.serving().id)
        }
    }
}
