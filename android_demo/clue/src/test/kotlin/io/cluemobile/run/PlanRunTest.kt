package io.cluemobile.run

import io.cluemobile.Contract
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.engine.Floats
import io.cluemobile.json.JsonText
import io.cluemobile.json.StrictJson
import io.cluemobile.json.asObject
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path

/** Requests of the toy bundle, which has every feature of a plan, on the real engine. */
class PlanRunTest {
    @TempDir
    lateinit var folder: Path
    private lateinit var bundle: ClueBundle
    private val cats = labelled(Contract.folder.resolve("scenarios/images.safetensors"), "cat", 0, 10)

    @BeforeEach
    fun open() {
        bundle = ClueBundle.open(Contract.toy(folder))
    }

    private fun job(scalars: Map<String, Double> = emptyMap(), change: (Job) -> Job = { it }): Job =
        change(Job(cats, seed = 7, scalars = bundle.mergedScalars(scalars)))

    private fun planRun(job: Job, meter: RunMeter = Counter(), begun: Begun? = null) =
        PlanRun(bundle, oneThread(), served(bundle), job, meter, begun)

    private fun Job.with(
        progress: (StepProgress) -> Unit = this.progress,
        check: () -> Unit = this.check,
        enough: () -> Boolean = this.enough,
        save: () -> Unit = this.save,
        saveEvery: Int = this.saveEvery,
    ) = Job(samples, seed, scalars, progress, check, enough, save, saveEvery)

    @Test
    fun `a request ends with other weights and tells each operation`() {
        val told = mutableListOf<StepProgress>()
        planRun(job(ALL_EPOCHS).with(progress = { told += it })).use { run ->
            val before = run.values.copies().getValue("params").bits()
            run.run()
            assertFalse(before == run.values.current("params").bits())
            assertEquals((1..told.size).map { it.toLong() }, told.map { it.done })
            assertTrue(told.all { it.total >= it.done })
            assertEquals(3, run.evidence.epochsRun)
            assertTrue(run.evidence.metrics.values.any { means -> means.values.all { it.size == 3 } })
        }
    }

    @Test
    fun `paused wherever it asks and gone on with, it ends with the same bits and evidence`() {
        var asked = 0
        val whole = planRun(job().with(check = { asked++ })).use { run ->
            run.run()
            run.values.copies().mapValues { it.value.bits() } to run.evidence.json()
        }
        assertTrue(whole.second["stopped_early"] as Boolean, "the toy's stop is taken")
        for (at in 0 until asked) {
            var left = at
            var begun: Begun? = null
            planRun(job().with(check = { if (left-- == 0) throw Paused("stopped") })).use { run ->
                assertThrows(Paused::class.java) { run.run() }
                val text = JsonText.of(run.soFar()).encodeToByteArray()
                begun = Begun(run.cursor, run.values.copies(), StrictJson.parse(text, 1 shl 20).asObject())
            }
            planRun(job(), begun = begun).use { run ->
                run.run()
                assertEquals(whole.first, run.values.all().mapValues { it.value.bits() }, "paused at $at")
                assertEquals(JsonText.of(whole.second), JsonText.of(run.evidence.json()), "paused at $at")
            }
        }
    }

    @Test
    fun `a checkpoint is asked for after each epoch and each so many steps`() {
        val cursors = mutableListOf<Long>()
        lateinit var run: PlanRun
        run = planRun(job(ALL_EPOCHS).with(save = { cursors += run.cursor }))
        run.use { it.run() }
        assertEquals(3, cursors.size)
        val often = mutableListOf<Long>()
        run = planRun(job(ALL_EPOCHS).with(save = { often += run.cursor }, saveEvery = 2))
        run.use { it.run() }
        assertTrue(often.size > cursors.size && often.containsAll(cursors))
    }

    @Test
    fun `enough ends the epochs`() {
        planRun(job().with(enough = { true })).use { run ->
            run.run()
            assertEquals(1, run.evidence.epochsRun)
            assertTrue(run.evidence.stoppedEarly)
        }
    }

    @Test
    fun `a metric that is not finite refuses the outcome`() {
        val refused = assertThrows(Refused::class.java) { planRun(job(mapOf("lr" to 3e38))).use { it.run() } }
        assertTrue("became" in refused.reason || "not finite" in refused.reason, refused.reason)
    }

    @Test
    fun `no count of epochs or a negative one runs none`() {
        for (epochs in listOf(0.0, -3.0, 0.4)) {
            planRun(job(mapOf("epochs" to epochs))).use { run ->
                run.run()
                assertTrue(run.evidence.epochsRun <= 1)
            }
        }
    }

    @Test
    fun `one sample fills its batch alone`() {
        val one = cats.at(intArrayOf(0))
        planRun(Job(one, 7, bundle.scalars)).use { run ->
            run.run()
            assertTrue(run.accuracy() in setOf(0.0, 100.0))
        }
    }

    @Test
    fun `new weights are written with what is no state, and read again`() {
        val old = served(bundle)
        planRun(job()).use { run ->
            run.run()
            val sha256 = WeightsFile.write(folder.resolve("new"), old, run.values.state())
            val new = WeightsFile.open(folder.resolve("new"), sha256, bundle)
            assertEquals(old.keys, new.keys)
            assertEquals(run.values.current("params").bits(), new.read("params").bits())
            assertEquals(old.read("frozen").bits(), new.read("frozen").bits())
        }
    }

    @Test
    fun `values begin with zeros as far as they do, and a NaN is none`() {
        planRun(job()).use { run ->
            val velocity = run.values.current("velocity")
            assertTrue(run.values.beginsWithZeros("velocity", velocity.size))
            velocity[3] = -0f
            assertTrue(run.values.beginsWithZeros("velocity", 4))
            velocity[3] = Float.NaN
            assertTrue(run.values.beginsWithZeros("velocity", 3))
            assertFalse(run.values.beginsWithZeros("velocity", 4))
        }
    }

    @Test
    fun `an array too large for a buffer is told`() {
        val error = assertThrows(io.cluemobile.EngineException::class.java) { Floats.zeros(listOf(1 shl 16, 1 shl 14)) }
        assertTrue("2 GiB" in error.message.orEmpty())
    }

    private companion object {
        /** Without the stop, so that every operation of the plan is carried out. */
        val ALL_EPOCHS = mapOf("check_every" to 0.0)
    }
}
