package io.cluemobile.engine

import io.cluemobile.EngineException
import io.cluemobile.files.between
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/**
 * A float32 array of a fixed shape that engines read and write in place: a direct buffer in the machine's byte order, which no
 * collector moves. Nothing is copied between two programs of a request. Android counts direct buffers towards the app's heap limit.
 *
 * Not for use by several threads at once.
 */
public class Floats private constructor(
    /** The length of each axis, the outermost first; empty for a single number. */
    public val shape: List<Int>,
    private val bytes: ByteBuffer,
) {
    /** The content from its first to its last element; callers use absolute positions or a [FloatBuffer.duplicate]. */
    public val buffer: FloatBuffer = bytes.asFloatBuffer()

    /** The number of elements. */
    public val size: Int get() = buffer.capacity()

    public operator fun get(index: Int): Float = buffer.get(index)

    public operator fun set(index: Int, value: Float) {
        buffer.put(index, value)
    }

    /** The bytes of the content in the machine's order; a view of its own position and limit. */
    internal fun bytes(): ByteBuffer = bytes.duplicate().order(ByteOrder.nativeOrder()).between(0, bytes.capacity())

    internal fun fill(value: Float) {
        for (i in 0 until size) buffer.put(i, value)
    }

    /** Take over the content of an array of the same size. */
    internal fun copyFrom(other: Floats) {
        require(other.size == size) { "an array of $size elements cannot take one of ${other.size}" }
        bytes().put(other.bytes())
    }

    /** Copy [count] elements of [from], beginning at [start], to the place [to]. */
    internal fun copyRange(to: Int, from: Floats, start: Int, count: Int) {
        buffer.duplicate().between(to, size).put(from.buffer.duplicate().between(start, start + count))
    }

    internal fun put(at: Int, values: FloatArray) {
        buffer.duplicate().between(at, size).put(values)
    }

    internal fun toArray(): FloatArray = FloatArray(size).also { buffer.duplicate().between(0, size).get(it) }

    internal companion object {
        /** An array of zeros. Throws [EngineException] when it has more bytes than one buffer can, or than the device has left. */
        fun zeros(shape: List<Int>): Floats {
            val size = shape.fold(1L) { product, side -> Math.multiplyExact(product, side.toLong()) }
            if (size > Int.MAX_VALUE / Float.SIZE_BYTES) {
                throw EngineException("an array of shape $shape has more than 2 GiB, which this runtime cannot hold")
            }
            val bytes = try {
                ByteBuffer.allocateDirect(size.toInt() * Float.SIZE_BYTES)
            } catch (error: OutOfMemoryError) {
                throw EngineException("no memory is left for an array of shape $shape: end other apps and try again", error)
            }
            return Floats(shape, bytes.order(ByteOrder.nativeOrder()))
        }

        fun of(shape: List<Int>, values: FloatArray): Floats = zeros(shape).also { it.put(0, values) }
    }
}
