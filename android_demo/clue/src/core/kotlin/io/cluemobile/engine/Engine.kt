package io.cluemobile.engine

import io.cluemobile.EngineException
import io.cluemobile.bundle.Port
import io.cluemobile.bundle.Program
import java.nio.file.Path

/** What executes programs. One engine makes many sessions; it may be used from any thread. */
public interface Engine {
    /** The key of the program files in the manifest, such as `onnx`. */
    public val name: String

    /** The version of the library behind it: a request goes on with the same one only. */
    public val version: String

    /** What it computes on, such as `cpu`; for cost records. */
    public val backend: String

    /** How many threads work within one operator. */
    public val threads: Int

    /**
     * Load [program] from its [file].
     *
     * @throws EngineException when the file cannot be read or its ports are not the program's.
     */
    public fun load(file: Path, program: Program): Session
}

/** A loaded program. Used by one thread at a time. */
public interface Session : AutoCloseable {
    /**
     * Compute the outputs INTO the given arrays: every port of the program by its name, of the port's shape, no output the same
     * array as another one. The arrays may be kept referenced until [close].
     *
     * @throws EngineException when the program fails.
     */
    public fun run(inputs: Map<String, Floats>, outputs: Map<String, Floats>)

    override fun close()
}

/** Makes an engine; an app lists the ones it has, the preferred one first. */
public interface EngineFactory {
    /** The [Engine.name] of what it makes. */
    public val name: String

    /**
     * An engine with so many [threads], or as many as the device has processors when null.
     *
     * @throws EngineException when its library is missing, or [threads] is not from 1 to 256.
     */
    public fun create(threads: Int? = null): Engine
}
