package io.cluemobile.run

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Role
import io.cluemobile.files.sha256
import io.cluemobile.json.JsonObject
import io.cluemobile.json.StrictJson
import io.cluemobile.json.asObject
import io.cluemobile.json.number
import io.cluemobile.json.obj
import io.cluemobile.json.text
import io.cluemobile.json.whole
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test
import java.nio.file.Path
import java.util.Base64
import kotlin.io.path.exists
import kotlin.io.path.readBytes
import kotlin.io.path.readLines
import kotlin.math.abs

/**
 * Whole requests against what pi_runtime computed, program by program (tests/android/reference.py): what is drawn and cut from the
 * samples has the same bits, so the order of the samples, the noise and the crops are the same; metrics, masks and weights, whose
 * arithmetic is the engine's, are the same to a tolerance.
 */
class ReferenceTest {
    private val folder = Path.of(System.getProperty("clue.reference"))

    @Test
    fun `the toy request is pi_runtime's`() = compare("toy")

    @Test
    fun `the digits request is pi_runtime's`() = compare("digits")

    private fun compare(name: String) {
        val reference = folder.resolve(name)
        assumeTrue(reference.resolve("trace.jsonl").exists()) { "$reference is not there: python tests/android/reference.py makes it" }
        Comparison(reference).run()
    }

    private class Comparison(private val reference: Path) {
        private val bundle = ClueBundle.open(reference.resolve("bundle"))
        private val request = parse(reference.resolve("request.json").readBytes())
        private val lines = reference.resolve("trace.jsonl").readLines().map { parse(it.encodeToByteArray()) }
        private var runs = 0
        private var bits = 0L
        private var otherBits = 0L
        private var worstMetric = 0.0

        private fun parse(text: ByteArray): JsonObject = StrictJson.parse(text, 1 shl 26).asObject()

        fun run() {
            val engine = Recording(oneThread()) { program, inputs, outputs ->
                val line = lines[runs]
                assertEquals(line.text("program"), program.name, "run $runs")
                for (port in program.inputs.filter { it.role == Role.RANDOM || it.role == Role.BATCH }) {
                    val content = inputs.getValue(port.name).bytes()
                    val bytes = ByteArray(content.remaining()).also { content.get(it) }
                    assertEquals(line.obj("inputs").text(port.name), sha256(bytes), "run $runs, ${program.name}, ${port.name}")
                }
                for ((metric, wanted) in line.obj("metrics")) compareMetric(outputs.getValue(metric)[0].toDouble(), wanted as Double)
                for ((mask, packed) in line.obj("masks")) compareMask(outputs.getValue(mask).toArray(), packed as String)
                runs++
            }
            val file = WeightsFile(reference.resolve("images.safetensors"))
            val count = checkNotNull(file.shape("labels"))[0]
            val labels = file.bytes("labels", "I64").order(java.nio.ByteOrder.LITTLE_ENDIAN).asLongBuffer()
            val samples = labelled(reference.resolve("images.safetensors"), "images", labels[0].toInt(), count)
            val scalars = request.obj("scalars").mapValues { (it.value as Number).toDouble() }
            val began = System.nanoTime()
            PlanRun(bundle, engine, served(bundle), Job(samples, request.whole("seed"), scalars), Counter()).use { run ->
                run.run()
                assertEquals(request.number("forget_accuracy_after"), run.accuracy())
                compareEvidence(run.evidence.json())
                compareWeights(run)
            }
            assertEquals(lines.size, runs)
            val seconds = (System.nanoTime() - began) / 1e9
            val took = "%.2f s (pi_runtime %.2f s)".format(seconds, request.number("seconds"))
            println("${bundle.name}: $runs runs of programs in $took, inputs equal bit for bit")
            println("${bundle.name}: $otherBits of $bits mask bits differ, metrics by at most %.1e".format(worstMetric))
        }

        private fun compareMetric(found: Double, wanted: Double) {
            val error = abs(found - wanted) / maxOf(1e-6, abs(wanted))
            worstMetric = maxOf(worstMetric, error)
            assertTrue(error < 1e-3) { "run $runs: $found instead of $wanted" }
        }

        /** A gradient beside its threshold may fall on either side. */
        private fun compareMask(found: FloatArray, packed: String) {
            val wanted = Base64.getDecoder().decode(packed)
            val other = found.indices.count { found[it] != ((wanted[it / 8].toInt() shr it % 8) and 1).toFloat() }
            assertTrue(other <= found.size / 1000) { "run $runs: $other of ${found.size} bits differ" }
            bits += found.size
            otherBits += other
        }

        private fun compareEvidence(found: JsonObject) {
            val wanted = request.obj("evidence")
            for (key in listOf("epochs_run", "stopped_early")) assertEquals(wanted[key], found[key])
            assertEquals(wanted.obj("metrics").keys, found.obj("metrics").keys)
            assertEquals((wanted["stops"] as List<*>).size, (found["stops"] as List<*>).size)
        }

        private fun compareWeights(run: PlanRun) {
            val wanted = WeightsFile(reference.resolve("weights.safetensors"))
            for ((key, array) in run.values.state()) {
                val expected = wanted.read(key)
                val scale = (0 until expected.size).maxOf { abs(expected[it]) }
                val worst = (0 until expected.size).maxOf { abs(expected[it] - array[it]) } / scale
                println("${bundle.name}: $key differ by at most %.1e of their largest".format(worst))
                assertTrue(worst < 1e-3) { "$key differ by $worst" }
            }
        }
    }
}
