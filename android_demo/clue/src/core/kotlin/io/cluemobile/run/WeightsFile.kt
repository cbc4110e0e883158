package io.cluemobile.run

import io.cluemobile.StorageException
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.engine.Floats
import io.cluemobile.files.Safetensors
import io.cluemobile.files.TensorEntry
import io.cluemobile.files.TensorLayout
import io.cluemobile.files.atomicWrite
import io.cluemobile.files.sha256File
import java.nio.ByteBuffer
import java.nio.file.Path

/**
 * The arrays of a safetensors file, each read from the disk when asked for and not kept: a request needs the served weights at its
 * start and again on a reset, and a copy held all along would be a third one of each.
 */
internal class WeightsFile(val path: Path) {
    private val tensors = Safetensors.readHeader(path).tensors

    val keys: Set<String> get() = tensors.keys

    /** The shape of an array without reading it, null when there is none of that name. */
    fun shape(key: String): List<Int>? = tensors[key]?.shape

    /** A float32 array of the file. Throws StorageException when it is missing or of another type. */
    fun read(key: String): Floats = Floats.zeros(entry(key, "F32").shape).also { readInto(key, it) }

    /** Read a float32 array into one of the same size. Throws as [read]. */
    fun readInto(key: String, into: Floats) {
        val entry = entry(key, "F32")
        if (entry.size != into.size.toLong() * Float.SIZE_BYTES) {
            throw StorageException("$path: $key is ${entry.shape}, it must be ${into.shape}")
        }
        // The files are little-endian, as is every machine that Android or this library's engines run on.
        Safetensors.read(path, entry, into.bytes())
    }

    /** The bytes of an array of type [dtype]. Throws StorageException when it is missing or of another type. */
    fun bytes(key: String, dtype: String): ByteBuffer = ByteBuffer.wrap(Safetensors.read(path, entry(key, dtype)))

    private fun entry(key: String, dtype: String): TensorEntry {
        val entry = tensors[key]
        if (entry?.dtype != dtype) throw StorageException("$path: $key is ${entry?.dtype ?: "missing"}, it must be $dtype")
        return entry
    }

    companion object {
        /**
         * A weights file whose SHA-256 and every shape that the bundle expects were checked. Throws StorageException naming the
         * file when it is missing, was changed or does not fit the bundle.
         */
        fun open(path: Path, sha256: String, bundle: ClueBundle): WeightsFile {
            if (sha256File(path) != sha256) {
                throw StorageException("weights $path were changed: their SHA-256 is not the recorded one")
            }
            val file = WeightsFile(path)
            for (value in bundle.values.values) {
                val key = value.weightsKey ?: continue
                val found = file.shape(key)
                if (found != value.shape) {
                    throw StorageException("weights $path: $key is ${found ?: "missing"}, the bundle needs ${value.shape}")
                }
            }
            return file
        }

        /**
         * Write the arrays of [old] with those of [state] in their place as the new file [path]; returns its SHA-256. Throws as
         * atomicWrite. The arrays go to the file one by one, so that no copy of all of them is held.
         */
        fun write(path: Path, old: WeightsFile, state: Map<String, Floats>): String {
            val kept = (old.keys - state.keys).associateWith { old.tensors.getValue(it) }
            val layouts = kept.mapValues { TensorLayout(it.value.dtype, it.value.shape, it.value.size) } +
                state.mapValues { TensorLayout("F32", it.value.shape, it.value.size.toLong() * Float.SIZE_BYTES) }
            val chunks = sequence {
                yield(ByteBuffer.wrap(Safetensors.encodedHeader(layouts)))
                for (key in layouts.keys.sorted()) {
                    yield(state[key]?.bytes() ?: ByteBuffer.wrap(Safetensors.read(old.path, kept.getValue(key))))
                }
            }
            return atomicWrite(path, chunks)
        }
    }
}
