package io.cluemobile.ort

import com.sun.management.ThreadMXBean
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Role
import io.cluemobile.bundle.elements
import io.cluemobile.engine.Floats
import io.cluemobile.engine.load
import io.cluemobile.run.WeightsFile
import io.cluemobile.run.goldenInputs
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test
import java.lang.management.ManagementFactory
import java.nio.file.Path
import kotlin.io.path.exists

private const val RUNS = 50

/** State stays native between steps: what a step costs in JVM heap does not grow with the weights. */
class NativeStateTest {
    @Test
    fun `a training step allocates no copy of the weights on the heap`() {
        val root = Path.of(System.getProperty("clue.reference")).resolve("digits/bundle")
        assumeTrue(root.exists()) { "$root is not there: python tests/android/reference.py makes it" }
        val bundle = ClueBundle.open(root)
        val program = bundle.programs.getValue("step")
        val state = program.inputs.filter { it.role == Role.STATE || it.role == Role.CARRY }.sumOf { 4 * elements(it.shape) }
        OrtEngine.create(1).load(bundle, program).use { session ->
            val inputs = goldenInputs(bundle, program, WeightsFile(bundle.file(program.golden.file)))
            val outputs = program.outputs.associate { it.name to Floats.zeros(it.shape) }
            val run = { session.run(inputs, outputs) }
            run()
            val thread = ManagementFactory.getThreadMXBean() as ThreadMXBean
            val before = thread.getThreadAllocatedBytes(Thread.currentThread().id)
            repeat(RUNS) { run() }
            val each = (thread.getThreadAllocatedBytes(Thread.currentThread().id) - before) / RUNS
            println("a step of ${state / 1024} KiB of state allocates $each bytes of JVM heap")
            assertTrue(each < state / 4) { "$each bytes a step, the state has $state" }
        }
    }
}
