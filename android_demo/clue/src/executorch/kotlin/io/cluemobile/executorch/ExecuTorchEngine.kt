package io.cluemobile.executorch

import io.cluemobile.EngineException
import io.cluemobile.bundle.Port
import io.cluemobile.bundle.Program
import io.cluemobile.engine.Engine
import io.cluemobile.engine.EngineFactory
import io.cluemobile.engine.Floats
import io.cluemobile.engine.Session
import io.cluemobile.engine.checkThreads
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.nio.file.Path
import java.util.IdentityHashMap

// Values that are swapped have two arrays each, so a plan comes back to few; the limit keeps a session from holding on to all others.
private const val MOST_TENSORS = 256

/**
 * The engine of programs for ExecuTorch (executorch-android).
 *
 * The library does not tell its version, so an app that uses another than [version] gives it: a request goes on with the same one only.
 */
public class ExecuTorch(private val version: String = "1.5.1") : EngineFactory {
    override val name: String get() = "executorch"

    override fun create(threads: Int?): Engine {
        checkThreads(threads)
        return ExecuTorchEngine(version, threads ?: Runtime.getRuntime().availableProcessors())
    }
}

/** ExecuTorch with the XNNPACK delegate, on the processor. Its pool of threads is the process's: the engine made last decides. */
internal class ExecuTorchEngine(override val version: String, override val threads: Int) : Engine {
    override val name: String get() = "executorch"

    override val backend: String get() = "xnnpack"

    override fun load(file: Path, program: Program): Session = explained("ExecuTorch cannot load $file") {
        val module = Module.load(file.toString(), Module.LOAD_MODE_MMAP, threads)
        try {
            if (program.name !in module.getMethods()) {
                throw EngineException("$file has no method ${program.name}: export the bundle again")
            }
        } catch (error: Throwable) {
            module.destroy()
            throw error
        }
        ExecuTorchSession(module, program)
    }
}

/**
 * A method of a program file. Inputs are read where they lie; outputs are copied once from the method's own memory to the runtime's, both
 * outside the JVM heap, since ExecuTorch's binding lets nobody say where they are to be written.
 */
private class ExecuTorchSession(private val module: Module, private val program: Program) : Session {
    private val tensors = IdentityHashMap<Floats, EValue>()

    override fun run(inputs: Map<String, Floats>, outputs: Map<String, Floats>) {
        val given = program.inputs.map { port -> tensor(port, inputs.getValue(port.name)) }
        val results = explained("program ${program.name} failed in ExecuTorch") {
            module.execute(program.name, *given.toTypedArray())
        }
        if (results.size != program.outputs.size) {
            throw EngineException("program ${program.name} has ${program.outputs.size} outputs, and ExecuTorch gave ${results.size}")
        }
        program.outputs.forEachIndexed { index, port -> copy(port, results[index].toTensor(), outputs.getValue(port.name)) }
    }

    private fun tensor(port: Port, floats: Floats): EValue {
        checkShape(port, floats.shape)
        if (tensors.size == MOST_TENSORS) tensors.clear()
        return tensors.getOrPut(floats) {
            val shape = LongArray(floats.shape.size) { floats.shape[it].toLong() }
            EValue.from(Tensor.fromBlob(floats.buffer, shape))
        }
    }

    private fun copy(port: Port, from: Tensor, to: Floats) {
        checkShape(port, to.shape)
        checkShape(port, from.shape().map(Long::toInt))
        from.copyDataInto(to.buffer.duplicate())
    }

    private fun checkShape(port: Port, shape: List<Int>) {
        if (shape != port.shape) {
            throw EngineException("program ${program.name}, port ${port.name}: expected an array ${port.shape}, got $shape")
        }
    }

    override fun close() {
        tensors.clear()
        module.destroy()
    }
}

/** [work], with everything that ExecuTorch throws as an [EngineException] that begins with [what]. */
private fun <T> explained(what: String, work: () -> T): T = try {
    work()
} catch (error: RuntimeException) {
    throw EngineException("$what: ${error.message?.lineSequence()?.first() ?: error.javaClass.simpleName}", error)
} catch (error: LinkageError) {
    throw EngineException("$what: the app lacks executorch-android; add it to the app's dependencies", error)
}
