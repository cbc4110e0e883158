package io.cluemobile.request

import io.cluemobile.ClueException
import io.cluemobile.StorageException
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Role
import io.cluemobile.engine.Floats
import io.cluemobile.files.Safetensors
import io.cluemobile.files.SafetensorsHeader
import io.cluemobile.files.TensorLayout
import io.cluemobile.files.atomicWrite
import io.cluemobile.files.between
import io.cluemobile.files.hex
import io.cluemobile.files.storage
import io.cluemobile.json.JsonException
import io.cluemobile.json.JsonText
import io.cluemobile.json.StrictJson
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.Path
import java.security.MessageDigest

private const val FORMAT = "1"

/** A header holds names, shapes and the texts of the metadata; step times are its largest part. */
private const val LARGEST_HEADER = 64 shl 20
private const val PIECE = 1 shl 20
private val UNSIGNED = "0".repeat(64)

/**
 * What a checkpoint belongs to: only with all of it the same is going on bit-identical to never stopping. [baseSha256] is
 * of the weights that the request began with.
 */
internal data class Identity(
    val request: Long,
    val seed: Long,
    val manifestSha256: String,
    val baseSha256: String,
    val engine: String,
    val version: String,
    val threads: Int,
)

/** Where a request is: the number of the next operation, every value's content, and two JSON objects. */
internal class CheckpointState(
    val cursor: Long,
    val values: Map<String, Floats>,
    val evidence: Map<String, Any?>,
    val cost: Map<String, Any?>,
)

/** Where a request is, as one safetensors file: written after each epoch, read when a request goes on. */
internal object Checkpoint {
    /**
     * Writes a checkpoint in place of an older one, which stays whole until the new one is on the disk.
     *
     * Throws [StorageException] when the disk fails, [ClueException] when a value that is stored as bits has others
     * than 0 and 1.
     */
    fun write(path: Path, state: CheckpointState, identity: Identity, bundle: ClueBundle) {
        val layouts = state.values.mapValues { (name, array) ->
            val packed = (array.size + 7) / 8
            if (bundle.values.getValue(name).bits) TensorLayout("U8", listOf(packed), packed.toLong())
            else TensorLayout("F32", array.shape, 4L * array.size)
        }
        val metadata = metadata(state, identity)
        fun chunks(sha256: String) = sequence {
            yield(ByteBuffer.wrap(Safetensors.encodedHeader(layouts, metadata + ("sha256" to sha256))))
            for (name in state.values.keys.sorted()) {
                val array = state.values.getValue(name)
                yield(if (bundle.values.getValue(name).bits) ByteBuffer.wrap(pack(name, array)) else array.bytes())
            }
        }
        val digest = MessageDigest.getInstance("SHA-256")
        chunks(UNSIGNED).forEach(digest::update)
        atomicWrite(path, chunks(digest.digest().hex()), replace = true)
    }

    private fun metadata(state: CheckpointState, identity: Identity): Map<String, String> = mapOf(
        "format" to FORMAT,
        "request_id" to identity.request.toString(),
        "seed" to identity.seed.toString(),
        "manifest_sha256" to identity.manifestSha256,
        "base_sha256" to identity.baseSha256,
        "engine" to identity.engine,
        "version" to identity.version,
        "threads" to identity.threads.toString(),
        "cursor" to state.cursor.toString(),
        "evidence" to JsonText.of(state.evidence),
        "cost" to JsonText.of(state.cost),
    )

    private fun pack(name: String, array: Floats): ByteArray {
        val packed = ByteArray((array.size + 7) / 8)
        for (i in 0 until array.size) {
            when (array[i]) {
                0f -> Unit
                1f -> packed[i / 8] = (packed[i / 8].toInt() or (1 shl i % 8)).toByte()
                else -> throw ClueException(
                    "value $name is stored as bits but has others than 0 and 1: export the bundle again",
                )
            }
        }
        return packed
    }

    /**
     * The checkpoint of a request of [n] samples in the plan; null when there is none.
     *
     * A damaged one (cut off, changed, of another version, not of these values) is removed: null too.
     */
    fun read(path: Path, bundle: ClueBundle, n: Int): Pair<CheckpointState, Identity>? {
        if (!Files.exists(path)) return null
        return try {
            val header = Safetensors.readHeader(path, LARGEST_HEADER)
            if (hash(path) != header.metadata["sha256"]) throw Damaged("the hash is another")
            parse(path, header, bundle, n)
        } catch (_: Damaged) {
            remove(path)
        } catch (error: StorageException) {
            // A disk that cannot be read is not a damaged file.
            if (error.cause is IOException) throw error
            remove(path)
        }
    }

    private fun remove(path: Path): Nothing? = storage("remove", path) {
        Files.deleteIfExists(path)
        null
    }

    /** The SHA-256 of the file with zeros in the place of its own, hex. */
    private fun hash(path: Path): String = storage("read", path) {
        FileChannel.open(path).use { channel ->
            val length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN)
            fill(channel, length)
            val text = ByteBuffer.allocate(length.getLong(0).toInt())
            fill(channel, text)
            val digest = MessageDigest.getInstance("SHA-256")
            digest.update(length.array())
            digest.update(unsigned(text.array()))
            val piece = ByteBuffer.allocate(PIECE)
            while (channel.read(piece) >= 0) {
                digest.update(piece.between(0, piece.position()))
                piece.between(0, PIECE)
            }
            digest.digest().hex()
        }
    }

    private fun fill(channel: FileChannel, buffer: ByteBuffer) {
        while (buffer.hasRemaining()) if (channel.read(buffer) < 0) throw Damaged("it ends too early")
    }

    private fun unsigned(header: ByteArray): ByteArray {
        // One byte for each character: what is not ASCII in it stays as it is.
        val text = header.toString(Charsets.ISO_8859_1)
        val found = Regex("\"sha256\":\"[0-9a-f]{64}\"").findAll(text).toList()
        if (found.size != 1) throw Damaged("the hash stands elsewhere")
        return text.replaceRange(found[0].range, "\"sha256\":\"$UNSIGNED\"").toByteArray(Charsets.ISO_8859_1)
    }

    private fun parse(
        path: Path,
        header: SafetensorsHeader,
        bundle: ClueBundle,
        n: Int,
    ): Pair<CheckpointState, Identity> {
        val told = header.metadata
        fun text(name: String) = told[name] ?: throw Damaged("it has no $name")
        fun whole(name: String) = text(name).toLongOrNull() ?: throw Damaged("its $name is no number")
        if (text("format") != FORMAT) throw Damaged("it is of another version")
        if (header.tensors.keys != bundle.values.keys) throw Damaged("it has other values")
        val values = bundle.values.mapValues { (name, value) ->
            val shape = if (value.role == Role.CACHE) listOf(n) + value.shape else value.shape
            val entry = header.tensors.getValue(name)
            val array = Floats.zeros(shape)
            if (value.bits) {
                val packed = (array.size + 7) / 8
                if (entry.dtype != "U8" || entry.shape != listOf(packed)) throw Damaged("$name is of another shape")
                unpack(Safetensors.read(path, entry), array)
            } else {
                if (entry.dtype != "F32" || entry.shape != shape) throw Damaged("$name is of another shape")
                Safetensors.read(path, entry, array.bytes())
            }
            array
        }
        val state = CheckpointState(whole("cursor"), values, json(text("evidence")), json(text("cost")))
        return state to Identity(
            whole("request_id"), whole("seed"), text("manifest_sha256"), text("base_sha256"), text("engine"),
            text("version"), whole("threads").toInt(),
        )
    }

    private fun unpack(packed: ByteArray, into: Floats) {
        for (i in 0 until into.size) into[i] = ((packed[i / 8].toInt() shr i % 8) and 1).toFloat()
    }

    @Suppress("UNCHECKED_CAST")
    private fun json(text: String): Map<String, Any?> = try {
        StrictJson.parse(text.toByteArray(), LARGEST_HEADER) as? Map<String, Any?> ?: throw Damaged("it has no object")
    } catch (error: JsonException) {
        throw Damaged(error.message.orEmpty())
    }

    /** Throws [ClueException], naming both, where a checkpoint was made by what would not go on bit-identically. */
    fun check(found: Identity, here: Identity) {
        val request = "request ${here.request}"
        val wayOut = "or cancel it and retry it, which starts it anew"
        if (found.engine != here.engine || found.version != here.version) {
            throw ClueException(
                "$request was begun with ${found.engine} ${found.version} and this is ${here.engine} ${here.version}: " +
                    "go on with the engine that began it, $wayOut",
            )
        }
        if (found.threads != here.threads) {
            throw ClueException(
                "$request was begun with ${found.threads} threads and this has ${here.threads}: " +
                    "go on with ${found.threads}, $wayOut",
            )
        }
        fun same(what: String, one: String, other: String) {
            if (one == other) return
            throw ClueException(
                "$request was begun with the $what ${one.take(12)} and now there are ${other.take(12)}: " +
                    "go on with those that it began with, $wayOut",
            )
        }
        same("bundle", found.manifestSha256, here.manifestSha256)
        same("base weights", found.baseSha256, here.baseSha256)
        if (found.request != here.request || found.seed != here.seed) {
            throw ClueException(
                "the checkpoint of $request is of request ${found.request} with seed ${found.seed}, " +
                    "not of seed ${here.seed}: ${wayOut.removePrefix("or ")}",
            )
        }
    }

    private class Damaged(message: String) : Exception(message)
}
