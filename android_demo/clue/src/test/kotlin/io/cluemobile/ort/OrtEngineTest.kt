package io.cluemobile.ort

import io.cluemobile.Contract
import io.cluemobile.EngineException
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.engine.EngineFactory
import io.cluemobile.engine.Floats
import io.cluemobile.engine.engine
import io.cluemobile.engine.load
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.io.path.writeBytes

class OrtEngineTest {
    @TempDir
    lateinit var folder: Path

    private fun toy() = ClueBundle.open(Contract.toy(folder))

    private fun failure(word: String, work: () -> Unit) {
        val error = assertThrows(EngineException::class.java) { work() }
        assertTrue(word in error.message.orEmpty()) { error.message }
    }

    @Test
    fun `the engine says what it is`() {
        val engine = toy().engine(listOf(OrtEngine), threads = 2)
        assertEquals(listOf("onnx", "cpu", 2), listOf(engine.name, engine.backend, engine.threads))
        assertEquals("1.29.0", engine.version)
        assertEquals(Runtime.getRuntime().availableProcessors(), OrtEngine.create().threads)
        for (threads in listOf(0, -1, 257)) failure("threads") { OrtEngine.create(threads) }
    }

    @Test
    fun `a bundle without programs for the app's engines is told`() {
        val other = object : EngineFactory {
            override val name = "executorch"

            override fun create(threads: Int?) = error("not asked for")
        }
        failure("onnx") { toy().engine(listOf(other)) }
        assertEquals("onnx", toy().engine(listOf(other, OrtEngine)).name)
    }

    @Test
    fun `a program writes into the arrays that it is given, again and again`() {
        val bundle = toy()
        val program = bundle.programs.getValue("predict")
        OrtEngine.create(1).load(bundle, program).use { session ->
            val inputs = program.inputs.associate { it.name to Floats.zeros(it.shape) }
            inputs.getValue("frozen").fill(1f)
            inputs.getValue("params")[48] = 5f
            repeat(200) { round ->
                // New arrays each time: the session must not write into those of before.
                val outputs = program.outputs.associate { it.name to Floats.zeros(it.shape) }
                inputs.getValue("params")[49] = round.toFloat()
                session.run(inputs, outputs)
                val logits = outputs.getValue("logits")
                assertEquals(listOf(5f, round.toFloat(), 0f), (0 until 3).map { logits[it] })
            }
        }
    }

    @Test
    fun `an array of another shape never reaches the native code`() {
        val bundle = toy()
        val program = bundle.programs.getValue("predict")
        OrtEngine.create(1).load(bundle, program).use { session ->
            val inputs = program.inputs.associate { it.name to Floats.zeros(it.shape) }
            val outputs = program.outputs.associate { it.name to Floats.zeros(it.shape) }
            failure("port x") { session.run(inputs + ("x" to Floats.zeros(listOf(4, 1, 4, 3))), outputs) }
            failure("port logits") { session.run(inputs, emptyMap()) }
        }
    }

    @Test
    fun `a file that is no program, and one with other ports, are told`() {
        val bundle = toy()
        val program = bundle.programs.getValue("predict")
        val engine = OrtEngine.create(1)
        val nonsense = folder.resolve("nonsense.onnx").apply { writeBytes(ByteArray(100) { 7 }) }
        failure("cannot load") { engine.load(nonsense, program) }
        failure("cannot load") { engine.load(folder.resolve("gone.onnx"), program) }
        failure("in the file and") { engine.load(bundle.file("programs/onnx/step.onnx"), program) }
    }
}
