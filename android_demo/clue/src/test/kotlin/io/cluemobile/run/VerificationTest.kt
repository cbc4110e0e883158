package io.cluemobile.run

import io.cluemobile.Contract
import io.cluemobile.bundle.ClueBundle
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path

class VerificationTest {
    @TempDir
    lateinit var folder: Path
    private lateinit var bundle: ClueBundle
    private val cats = labelled(Contract.folder.resolve("scenarios/images.safetensors"), "cat", 0, 10)
    private val none = cats.at(IntArray(0))

    @BeforeEach
    fun open() {
        bundle = ClueBundle.open(Contract.toy(folder))
    }

    private fun verified(limit: Double, heldOut: Labelled = none, change: (PlanRun) -> Unit): Map<String, Any?> {
        val evidence = LinkedHashMap<String, Any?>()
        PlanRun(bundle, oneThread(), served(bundle), Job(cats, 7, bundle.scalars), Counter()).use { run ->
            change(run)
            verify(run, served(bundle), Checks(limit, setOf(0), heldOut), evidence)
        }
        return evidence
    }

    @Test
    fun `weights that did not change are refused`() {
        val refused = assertThrows(Refused::class.java) { verified(100.0) {} }
        assertTrue("did not change" in refused.reason)
    }

    @Test
    fun `weights that are not finite are refused`() {
        for (wrong in listOf(Float.NaN, Float.POSITIVE_INFINITY)) {
            val refused = assertThrows(Refused::class.java) { verified(100.0) { it.values.current("params")[2] = wrong } }
            assertTrue("not finite" in refused.reason)
        }
    }

    @Test
    fun `an accuracy above the limit is refused, also on what was held out`() {
        val nudge = { run: PlanRun -> run.values.current("params").let { it[0] += 1e-6f } }
        val refused = assertThrows(Refused::class.java) { verified(10.0, cats, nudge) }
        assertTrue("forget accuracy" in refused.reason && "held out" in refused.reason, refused.reason)
        val found = verified(100.0, cats, nudge)
        assertEquals(100.0, found["accuracy_at_most"])
        assertEquals(10L, (found["held_out"] as Map<*, *>)["samples"])
        assertNull(found["guard"])
    }

    @Test
    fun `a finished request passes and says what was measured`() {
        val found = verified(100.0) { it.run() }
        assertTrue(found.getValue("forget_accuracy_after") as Double in 0.0..100.0)
        assertEquals(listOf("forget_accuracy_after", "accuracy_at_most", "held_out", "guard", "collapse"), found.keys.toList())
    }
}
