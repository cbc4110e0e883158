package io.cluemobile.engine

import io.cluemobile.EngineException
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Program
import io.cluemobile.files.openRegular
import io.cluemobile.files.storage

private const val MOST_THREADS = 256

/**
 * An engine for this bundle: the first of [factories] that the bundle has programs for, with so many [threads] (as many as the
 * device has processors when null).
 *
 * @throws EngineException when there is none, saying what the bundle has; as [EngineFactory.create] does.
 */
public fun ClueBundle.engine(factories: List<EngineFactory>, threads: Int? = null): Engine {
    val exported = programs.getValue("predict").files.keys
    val factory = factories.firstOrNull { it.name in exported } ?: throw EngineException(
        "bundle $root has programs for ${exported.sorted().joinToString()}, and this app runs " +
            "${factories.map { it.name }.sorted().joinToString().ifEmpty { "none" }}: export it for one of these",
    )
    return factory.create(threads)
}

/** Throws [EngineException] for a number of threads that no device has. */
internal fun checkThreads(threads: Int?) {
    if (threads != null && threads !in 1..MOST_THREADS) {
        throw EngineException("threads is $threads: it must be from 1 to $MOST_THREADS")
    }
}

/**
 * Load a program's file for this engine. Throws [EngineException] when the bundle has none for it or the engine cannot use it, StorageException
 * when the file cannot be read: of that an engine would say only that the program is wrong.
 */
internal fun Engine.load(bundle: ClueBundle, program: Program): Session {
    val entry = program.files[name] ?: throw EngineException(
        "bundle ${bundle.root} has no $name file of program ${program.name} (it has ${program.files.keys.sorted().joinToString()}): " +
            "export it for this device",
    )
    val file = bundle.file(entry.file)
    storage("read", file) { openRegular(file).close() }
    return load(file, program)
}

/** Throws [EngineException] where an array is not of its port's shape: an engine may read or write beyond the end of a wrong one. */
internal fun checkArrays(program: Program, inputs: Map<String, Floats>, outputs: Map<String, Floats>) {
    for ((ports, arrays) in listOf(program.inputs to inputs, program.outputs to outputs)) {
        for (port in ports) {
            val shape = arrays[port.name]?.shape
            if (shape != port.shape) {
                throw EngineException("program ${program.name}, port ${port.name}: expected an array ${port.shape}, got ${shape ?: "none"}")
            }
        }
    }
}
