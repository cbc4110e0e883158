package io.cluemobile.ort

import ai.onnxruntime.NodeInfo
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import io.cluemobile.EngineException
import io.cluemobile.bundle.Port
import io.cluemobile.bundle.Program
import io.cluemobile.engine.Engine
import io.cluemobile.engine.EngineFactory
import io.cluemobile.engine.Floats
import io.cluemobile.engine.Session
import io.cluemobile.engine.checkArrays
import io.cluemobile.engine.checkThreads
import java.nio.file.Path
import java.util.IdentityHashMap

/** ONNX Runtime on the processor: programs read and write the runtime's own arrays, nothing is copied each step. */
public class OrtEngine private constructor(private val environment: OrtEnvironment, override val threads: Int) : Engine {
    override val name: String get() = NAME
    override val version: String get() = environment.version
    override val backend: String get() = "cpu"

    override fun load(file: Path, program: Program): Session {
        try {
            options().use { options ->
                val session = environment.createSession(file.toString(), options)
                try {
                    checkPorts(file, "input", session.inputInfo, program.inputs)
                    checkPorts(file, "output", session.outputInfo, program.outputs)
                } catch (error: EngineException) {
                    session.close()
                    throw error
                }
                return OrtProgram(environment, session, program)
            }
        } catch (error: OrtException) {
            throw EngineException("onnxruntime cannot load $file: ${firstLine(error)}", error)
        }
    }

    private fun options() = OrtSession.SessionOptions().apply {
        setIntraOpNumThreads(threads)
        setInterOpNumThreads(1)
        setExecutionMode(OrtSession.SessionOptions.ExecutionMode.SEQUENTIAL)
        setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)
        // Planned patterns hold one block of the size of all intermediates: no faster, and larger.
        setMemoryPatternOptimization(false)
        addCPU(true)
    }

    /** The factory of this engine. */
    public companion object : EngineFactory {
        private const val NAME = "onnx"

        override val name: String get() = NAME

        override fun create(threads: Int?): Engine {
            checkThreads(threads)
            val environment = try {
                OrtEnvironment.getEnvironment()
            } catch (error: LinkageError) {
                throw EngineException("the app was packed without onnxruntime's native library for this device", error)
            }
            return OrtEngine(environment, threads ?: Runtime.getRuntime().availableProcessors())
        }
    }
}

/** See [Session]. One native tensor is kept for each array that was seen: it names the array's own memory. */
private class OrtProgram(
    private val environment: OrtEnvironment,
    private val session: OrtSession,
    private val program: Program,
) : Session {
    private val tensors = IdentityHashMap<Floats, OnnxTensor>()

    // Each session has working memory of its own and would keep what its largest run needed, so that a request's peak were the sum of
    // all programs instead of the largest one. Giving it back after each run took a request of ResNet-20 (batch 32, x86-64) from 330
    // to 260 MiB, 130 of them the JVM's, for 2 to 8 % more processor time a step.
    private val options = OrtSession.RunOptions().apply { addRunConfigEntry("memory.enable_memory_arena_shrinkage", "cpu:0") }

    override fun run(inputs: Map<String, Floats>, outputs: Map<String, Floats>) {
        checkArrays(program, inputs, outputs)
        // Swapped values have two arrays each, so a plan comes back to few; the limit only keeps a session that is given new arrays
        // each time from holding on to all of them.
        if (tensors.size > MOST_TENSORS) release()
        try {
            session.run(bound(program.inputs, inputs), emptySet(), bound(program.outputs, outputs), options).close()
        } catch (error: OrtException) {
            throw EngineException("program ${program.name} failed in onnxruntime: ${firstLine(error)}", error)
        }
    }

    private fun bound(ports: List<Port>, arrays: Map<String, Floats>): Map<String, OnnxTensor> =
        ports.associate { it.name to tensor(arrays.getValue(it.name)) }

    private fun tensor(array: Floats): OnnxTensor = tensors.getOrPut(array) {
        OnnxTensor.createTensor(environment, array.buffer, LongArray(array.shape.size) { array.shape[it].toLong() })
    }

    private fun release() {
        tensors.values.forEach { it.close() }
        tensors.clear()
    }

    override fun close() {
        release()
        options.close()
        session.close()
    }

    private companion object {
        const val MOST_TENSORS = 128
    }
}

private fun checkPorts(file: Path, kind: String, found: Map<String, NodeInfo>, ports: List<Port>) {
    val inFile = found.mapValues { (_, node) -> described(node) }
    val inManifest = ports.associate { it.name to "float32 ${it.shape}" }
    for (name in (inFile.keys + inManifest.keys).sorted()) {
        if (inFile[name] != inManifest[name]) {
            throw EngineException(
                "$file: $kind $name is ${inFile[name] ?: "missing"} in the file and ${inManifest[name] ?: "missing"} in the manifest; " +
                    "export the bundle again",
            )
        }
    }
}

private fun described(node: NodeInfo): String {
    val tensor = node.info as? TensorInfo ?: return "no tensor"
    val type = if (tensor.type == OnnxJavaType.FLOAT) "float32" else tensor.type.toString()
    return "$type ${tensor.shape.toList()}"
}

private fun firstLine(error: Exception): String = error.message.orEmpty().trim().lineSequence().first()
