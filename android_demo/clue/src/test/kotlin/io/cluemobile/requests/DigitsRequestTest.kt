package io.cluemobile.requests

import io.cluemobile.Classifier
import io.cluemobile.Contract
import io.cluemobile.ForgetRequest
import io.cluemobile.Options
import io.cluemobile.Status
import io.cluemobile.Unlearner
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.jvm.told
import io.cluemobile.run.WeightsFile
import io.cluemobile.run.labelled
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.io.path.exists
import kotlin.io.path.readText
import kotlin.math.abs

private const val DIGIT = "3"

/** The demo's digits, through the whole library: what is told, and the weights, are the Raspberry Pi runtime's. */
class DigitsRequestTest {
    @TempDir
    lateinit var folder: Path
    private val reference = Path.of(System.getProperty("clue.reference")).resolve("digits")

    @Test
    fun `forgetting a digit ends as it does with clue-pi, can be rolled back, and sealed`() {
        assumeTrue(reference.resolve("told.txt").exists()) { "$reference is not there: python tests/android/reference.py makes it" }
        val bundle = ClueBundle.open(Contract.copy(reference.resolve("bundle"), folder.resolve("digits.clue")))
        val count = checkNotNull(WeightsFile(reference.resolve("images.safetensors")).shape("images"))[0]
        val images = labelled(reference.resolve("images.safetensors"), "images", DIGIT.toInt(), count).images.pixels()
        openStore(folder.resolve("store"), bundle).use { store ->
            assertEquals(count, store.add(images, DIGIT).size)
            val unlearner = Unlearner(store, engine())
            Classifier(store, engine()).use { classifier ->
                val before = classifier.predict(images.take(33))
                assertTrue(before.count { it.name == DIGIT && !it.forgotten } > 30)
                val result = unlearner.forget(ForgetRequest.ofClass(DIGIT, seed = 7, options = Options())).result()
                val lines = told(result.status, result.reason, result.evidence)
                lines.forEach(::println)
                store.costs.of(result.id).forEach { println(told(it)) }
                assertEquals(reference.resolve("told.txt").readText(), lines.joinToString("\n", postfix = "\n"))
                compareWeights(WeightsFile(store.serving().file))
                assertEquals(listOf(DIGIT), store.forgotten())
                assertTrue(classifier.predict(images.take(33)).count { it.name == DIGIT } < 33)
                unlearner.rollback(1)
                assertEquals(before, classifier.predict(images.take(33)))
                unlearner.rollback(2)
                unlearner.seal(result.id)
                assertEquals(emptyMap<String, Int>(), store.counts())
                assertFalse(bundle.root.resolve("weights.safetensors").exists())
                assertEquals(Status.DONE, store.request(result.id).status)
            }
        }
    }

    private fun compareWeights(found: WeightsFile) {
        val wanted = WeightsFile(reference.resolve("weights.safetensors"))
        for (key in wanted.keys) {
            val (one, other) = found.read(key) to wanted.read(key)
            val scale = (0 until other.size).maxOf { abs(other[it]) }
            assertTrue((0 until other.size).maxOf { abs(one[it] - other[it]) } / scale < 1e-3, key)
        }
    }
}
