package io.cluemobile.request

import io.cluemobile.ClueException
import io.cluemobile.Options
import io.cluemobile.Progress
import io.cluemobile.Status
import io.cluemobile.ToyTest
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Init
import io.cluemobile.bundle.Role
import io.cluemobile.bundle.Value
import io.cluemobile.engine.Floats
import io.cluemobile.files.Safetensors
import io.cluemobile.ort.OrtEngine
import io.cluemobile.store.checkpointPath
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.nio.file.Files
import java.nio.file.attribute.PosixFilePermissions

private const val N = 19

/** Checkpoints: what they hold, that a damaged one is none, that another engine's is refused. */
internal class CheckpointTest : ToyTest() {
    private val bundle get() = toy.store.bundle

    private val identity = Identity(3, 5, "m".repeat(64), "b".repeat(64), "onnx", "1.2", 4)

    private fun state(): CheckpointState {
        val values = bundle.values.mapValues { (_, value) ->
            val shape = if (value.role == Role.CACHE) listOf(N) + value.shape else value.shape
            Floats.zeros(shape).also { array -> for (i in 0 until array.size) array[i] = i * 0.25f - 1 }
        }
        return CheckpointState(7, values, mapOf("sums" to emptyList<Any>(), "text" to "\u20ac \"q\""), mapOf("wall_s" to 1e-7))
    }

    @Test
    fun `what is written is read`() {
        val path = folder.resolve("a.safetensors")
        val written = state()
        Checkpoint.write(path, written, identity, bundle)
        Checkpoint.write(path, written, identity, bundle) // in place of the first
        val (found, of) = checkNotNull(Checkpoint.read(path, bundle, N))
        assertEquals(identity, of)
        assertEquals(7L, found.cursor)
        assertEquals(written.evidence, found.evidence)
        assertEquals(written.cost, found.cost)
        assertEquals(written.values.keys, found.values.keys)
        for ((name, array) in written.values) assertArrayEquals(array.toArray(), found.values.getValue(name).toArray(), name)
        assertEquals("rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(path)))
        assertNull(Checkpoint.read(folder.resolve("none"), bundle, N))
    }

    @Test
    fun `every byte counts`() {
        val path = folder.resolve("a.safetensors")
        Checkpoint.write(path, state(), identity, bundle)
        val whole = Files.readAllBytes(path)
        val places = (0 until 8) + (8 until whole.size step 41) + listOf(whole.size - 1)
        for (place in places) {
            val changed = whole.copyOf().also { it[place] = (it[place].toInt() xor 4).toByte() }
            Files.write(path, changed)
            assertNull(Checkpoint.read(path, bundle, N), "byte $place")
            assertFalse(Files.exists(path), "byte $place")
        }
        for (length in listOf(0, 7, 8, 100, whole.size - 1)) {
            Files.write(path, whole.copyOf(length))
            assertNull(Checkpoint.read(path, bundle, N))
        }
        Files.write(path, whole)
        assertNull(Checkpoint.read(path, bundle, N + 1), "of another number of samples")
    }

    @Test
    fun `values of zeros and ones are packed`() {
        val mask = Value("importance", Role.CARRY, bundle.values.getValue("importance").shape, Init.Zeros, bits = true)
        val packing = withValue(mask)
        val path = folder.resolve("a.safetensors")
        val array = Floats.zeros(mask.shape).also { for (i in 0 until it.size) it[i] = if (i % 3 == 0) 1f else 0f }
        val state = CheckpointState(0, state().values + ("importance" to array), emptyMap(), emptyMap())
        Checkpoint.write(path, state, identity, packing)
        val entry = Safetensors.readHeader(path).tensors.getValue("importance")
        assertEquals("U8" to listOf((array.size + 7) / 8), entry.dtype to entry.shape)
        assertEquals(0b01001001, Safetensors.read(path, entry)[0].toInt()) // the least significant bit first
        assertArrayEquals(array.toArray(), Checkpoint.read(path, packing, N)!!.first.values.getValue("importance").toArray())
        array[1] = 0.5f
        assertThrows(ClueException::class.java) { Checkpoint.write(path, state, identity, packing) }
        assertNotNull(Checkpoint.read(path, packing, N), "the older one is still whole")
    }

    private fun withValue(value: Value) = bundle.run {
        ClueBundle(
            root, name, sha256, classes, input, color, fit, method, batch, tunedBatch, scalars, forgetAccuracyAtMost,
            sampleAccuracyAtMost, leastImages, license, notices, weights, programs, values + (value.name to value), randoms,
            plan, files, guard, guardDropAtMost, collapse,
        )
    }

    @Test
    fun `what would not go on bit by bit is refused by name`() {
        val others = listOf(
            identity.copy(engine = "litert") to "litert", identity.copy(version = "1.3") to "1.3",
            identity.copy(threads = 2) to "2", identity.copy(manifestSha256 = "x".repeat(64)) to "x".repeat(12),
            identity.copy(baseSha256 = "y".repeat(64)) to "base weights", identity.copy(seed = 6) to "seed",
            identity.copy(request = 4) to "request 4",
        )
        for ((found, word) in others) {
            val error = assertThrows(ClueException::class.java) { Checkpoint.check(found, identity) }
            assertTrue(word in error.message!!, error.message)
        }
        Checkpoint.check(identity, identity)
    }

    @Test
    fun `another number of threads leaves the request paused`() {
        toy.add()
        val id = toy.submit()
        stopAfter(id, 3)
        val more = OrtEngine.create(2)
        val error = assertThrows(ClueException::class.java) {
            carryOut(toy.store.store, more, id, Control(toy.platform.device))
        }
        assertTrue("1 threads" in error.message!! && "2" in error.message!!, error.message)
        assertEquals(Status.PAUSED, toy.store.request(id).status)
        assertEquals(Status.DONE, toy.run(id).status)
    }

    @Test
    fun `a damaged checkpoint lets the request start again, to the same weights`() {
        toy.add()
        val (undisturbed, id) = toy.submit().let { toy.run(it) to it }
        val wanted = toy.store.serving().sha256
        toy.unlearner.rollback(1)
        val again = toy.unlearner.retry(id, seed = 5)
        stopAfter(again, 9)
        val path = checkpointPath(toy.path, again)
        Files.write(path, Files.readAllBytes(path).also { it[it.size / 2] = (it[it.size / 2] + 1).toByte() })
        val result = toy.run(again)
        assertEquals(wanted, toy.store.serving().sha256)
        assertEquals(undisturbed.evidence, result.evidence)
    }

    @Test
    fun `a request that was stopped after each operation ends like one that was not`() {
        toy.add()
        val first = toy.submit(options = Options(checkpointSteps = 2))
        val undisturbed = toy.run(first)
        val wanted = toy.store.serving().sha256
        toy.unlearner.rollback(1)
        val again = toy.unlearner.retry(first, seed = 5)
        var parts = 0
        while (stopAfter(again, 1)) parts++
        assertTrue(parts > 10)
        assertEquals(wanted, toy.store.serving().sha256)
        val request = toy.store.request(again)
        assertEquals(Status.DONE, request.status)
        assertEquals(undisturbed.evidence, toy.store.request(first).evidence)
        assertEquals(toy.store.request(first).evidence, request.evidence)
        val phases = toy.store.costs.of(first).map { it.phase to it.steps }
        assertEquals(phases, toy.store.costs.of(again).map { it.phase to it.steps })
    }

    /** Runs a request until it has carried out so many operations; whether it paused then. */
    private fun stopAfter(id: Long, operations: Int): Boolean {
        var done = 0
        val control = Control(toy.platform.device, { if (it is Progress.Step) done++ }, stop = { done >= operations })
        return toy.run(id, control).status == Status.PAUSED
    }
}
