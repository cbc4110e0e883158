package io.cluemobile.run

import io.cluemobile.Contract
import io.cluemobile.EngineException
import io.cluemobile.at
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.changeManifest
import io.cluemobile.engine.Floats
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.io.path.exists

/** The golden suite: every program of the bundles on the real engine, against eager PyTorch. */
class GoldenTest {
    @TempDir
    lateinit var folder: Path

    private fun passes(root: Path) {
        val bundle = ClueBundle.open(root)
        val results = bundle.checkGolden(oneThread())
        assertEquals(bundle.programs.keys, results.map { it.program }.toSet())
        for (result in results) {
            println("golden ${bundle.name}/${result.program}/${result.output}: %.1e (at most %.1e)".format(result.error, result.tolerance))
            assertTrue(result.ok) { "${result.program}/${result.output}: ${result.error}" }
        }
    }

    @Test
    fun `every program of the toy bundles gives its golden outputs`() {
        passes(Contract.toy(folder))
        passes(Contract.toy(folder, "toy-2"))
    }

    @Test
    fun `every program of the digits bundle gives its golden outputs`() {
        val bundle = Path.of(System.getProperty("clue.reference")).resolve("digits/bundle")
        assumeTrue(bundle.exists()) { "$bundle is not there: python tests/android/reference.py makes it" }
        passes(bundle)
    }

    @Test
    fun `an engine that computes something else is found`() {
        val bundle = ClueBundle.open(Contract.toy(folder))
        val wrong = Recording(oneThread()) { _, _, outputs -> outputs.values.forEach { it[0] += 1f } }
        assertTrue(bundle.checkGolden(wrong).none { it.ok })
        val broken = Recording(oneThread()) { _, _, outputs -> outputs.values.forEach { it[0] = Float.NaN } }
        assertTrue(bundle.checkGolden(broken).all { it.error == Double.POSITIVE_INFINITY })
    }

    @Test
    fun `a tolerance is kept to`() {
        val root = Contract.toy(folder)
        changeManifest(root) { it.at("programs", "predict", "golden", "outputs", "logits")["tolerance"] = 1e-30 }
        val bundle = ClueBundle.open(root)
        val slightly = Recording(oneThread()) { _, _, outputs -> outputs.values.forEach(::nudge) }
        assertFalse(bundle.checkGolden(slightly).single { it.program == "predict" }.ok)
    }

    private fun nudge(array: Floats) {
        for (i in 0 until array.size) array[i] *= 1.0001f
    }

    @Test
    fun `an engine without programs in the bundle is told`() {
        val bundle = ClueBundle.open(Contract.toy(folder))
        val engine = oneThread()
        val other = object : io.cluemobile.engine.Engine by engine {
            override val name = "other"
        }
        val error = assertThrows(EngineException::class.java) { bundle.checkGolden(other) }
        assertTrue("onnx" in error.message.orEmpty())
    }
}
