package io.cluemobile.files

import io.cluemobile.StorageException
import io.cluemobile.json.JsonException
import io.cluemobile.json.JsonText
import io.cluemobile.json.StrictJson
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import java.nio.file.Path

/** An array of a file: its [start] is counted in bytes from the beginning of the file, as is its [size]. */
internal class TensorEntry(val dtype: String, val shape: List<Int>, val start: Long, val size: Long)

/** What a file holds, checked: the arrays by name and the metadata. */
internal class SafetensorsHeader(val tensors: Map<String, TensorEntry>, val metadata: Map<String, String>)

/** An array that is to be written: its type, shape, and size in bytes. */
internal class TensorLayout(val dtype: String, val shape: List<Int>, val size: Long)

/** Safetensors files, read without trusting their header: every number in it is checked before it is used. */
internal object Safetensors {
    private const val MAX_DIMENSIONS = 8
    private const val MAX_ELEMENTS = 1L shl 40
    private val BYTES = mapOf(
        "F64" to 8, "I64" to 8, "U64" to 8, "F32" to 4, "I32" to 4, "U32" to 4, "F16" to 2, "I16" to 2, "I8" to 1, "U8" to 1, "BOOL" to 1,
    )

    /** The largest header that is read unless a caller allows more. */
    const val MAX_HEADER: Int = 16 shl 20

    /**
     * The checked header of a file: every array's bytes are its shape's times its type's, lie in the file, and the arrays fill the
     * file without a gap or an overlap. Throws [StorageException] naming the file.
     */
    fun readHeader(path: Path, maxHeader: Int = MAX_HEADER): SafetensorsHeader = storage("read", path) {
        try {
            openRegular(path).use { header(it, maxHeader) }
        } catch (error: JsonException) {
            throw StorageException("cannot read $path: it is no sound safetensors file, ${error.message}", error)
        }
    }

    /** Read an array into [into] at its position, exactly the entry's size. Throws [StorageException]. */
    fun read(path: Path, entry: TensorEntry, into: ByteBuffer): Unit = storage("read", path) {
        openRegular(path).use { channel ->
            val start = into.position()
            val left = into.duplicate().between(start, start + entry.size.toInt())
            while (left.hasRemaining()) {
                if (channel.read(left, entry.start + left.position() - start) <= 0) throw IOException("it has become shorter")
            }
        }
    }

    /** The bytes of an array. Throws [StorageException]; for arrays of up to 2 GiB. */
    fun read(path: Path, entry: TensorEntry): ByteArray {
        if (entry.size > Int.MAX_VALUE) throw StorageException("cannot read $path: an array of it has more than 2 GiB")
        return ByteBuffer.allocate(entry.size.toInt()).also { read(path, entry, it) }.array()
    }

    /** The beginning of a file whose arrays follow in the order of their names. */
    fun encodedHeader(arrays: Map<String, TensorLayout>, metadata: Map<String, String> = emptyMap()): ByteArray {
        val header = LinkedHashMap<String, Any?>()
        if (metadata.isNotEmpty()) header["__metadata__"] = metadata
        var offset = 0L
        for ((name, layout) in arrays.toSortedMap()) {
            val end = offset + layout.size
            header[name] = mapOf("dtype" to layout.dtype, "shape" to layout.shape, "data_offsets" to listOf(offset, end))
            offset = end
        }
        val text = JsonText.of(header).encodeToByteArray()
        val padding = (8 - text.size % 8) % 8
        val out = ByteBuffer.allocate(8 + text.size + padding).order(ByteOrder.LITTLE_ENDIAN)
        out.putLong((text.size + padding).toLong()).put(text)
        while (out.hasRemaining()) out.put(' '.code.toByte())
        return out.array()
    }

    private fun header(channel: FileChannel, maxHeader: Int): SafetensorsHeader {
        val size = channel.size()
        if (size < 8) throw JsonException("it has $size bytes")
        val length = exactly(channel, 8).order(ByteOrder.LITTLE_ENDIAN).getLong(0)
        if (length < 0 || length > minOf(maxHeader.toLong(), size - 8)) {
            throw JsonException("its header claims ${java.lang.Long.toUnsignedString(length)} bytes of ${size - 8}")
        }
        val raw = StrictJson.parse(exactly(channel, length.toInt()).array(), maxHeader) as? Map<*, *>
            ?: throw JsonException("its header is no JSON object")
        val metadata = raw["__metadata__"] ?: emptyMap<String, String>()
        if (metadata !is Map<*, *> || !metadata.values.all { it is String }) throw JsonException("its metadata are not strings")
        val data = 8 + length
        val tensors = raw.filterKeys { it != "__metadata__" }.map { (name, entry) -> (name as String) to entry(name, entry, data) }
        var end = data
        for ((name, tensor) in tensors.sortedWith(compareBy({ it.second.start }, { it.second.size }))) {
            if (tensor.start != end) throw JsonException("'${name.take(100)}' begins at byte ${tensor.start} instead of $end")
            end += tensor.size
        }
        if (end != size) throw JsonException("its arrays end at byte $end, the file at $size")
        return SafetensorsHeader(tensors.toMap(), metadata.entries.associate { it.key as String to it.value as String })
    }

    private fun entry(name: String, raw: Any?, data: Long): TensorEntry {
        val shown = "'${name.take(100)}'"
        if (raw !is Map<*, *> || raw.keys != setOf("dtype", "shape", "data_offsets")) {
            throw JsonException("the entry of $shown is not dtype, shape and data_offsets")
        }
        val dtype = raw["dtype"]
        val width = BYTES[dtype] ?: throw JsonException("$shown is of the type '${dtype.toString().take(20)}'")
        val shape = sizes(raw["shape"])
        if (shape == null || shape.size > MAX_DIMENSIONS) {
            throw JsonException("the shape of $shown is no list of up to $MAX_DIMENSIONS sizes")
        }
        val offsets = sizes(raw["data_offsets"])
        if (offsets == null || offsets.size != 2 || offsets[0] > offsets[1]) {
            throw JsonException("the data_offsets of $shown are no begin and end")
        }
        var most = 1L
        for (side in shape) {
            if (side > MAX_ELEMENTS / most) throw JsonException("the shape of $shown is too large")
            most *= maxOf(1, side) // one side may be 0, and the others still have to be sound
        }
        val elements = if (shape.any { it == 0L }) 0 else most
        val size = offsets[1] - offsets[0]
        if (size != elements * width) throw JsonException("$shown has $size bytes, which do not fit its shape and type")
        if (shape.any { it > Int.MAX_VALUE }) throw JsonException("the shape of $shown is too large")
        return TensorEntry(dtype as String, shape.map { it.toInt() }, data + offsets[0], size)
    }

    private fun sizes(value: Any?): List<Long>? =
        (value as? List<*>)?.map { each -> (each as? Long)?.takeIf { it >= 0 } ?: return null }

    private fun exactly(channel: FileChannel, size: Int): ByteBuffer {
        val out = ByteBuffer.allocate(size)
        while (out.hasRemaining()) if (channel.read(out) < 0) throw JsonException("it ends too early")
        return out
    }
}
