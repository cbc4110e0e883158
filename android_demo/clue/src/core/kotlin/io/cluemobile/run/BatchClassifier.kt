package io.cluemobile.run

import io.cluemobile.bundle.Program
import io.cluemobile.bundle.Role
import io.cluemobile.engine.Floats
import io.cluemobile.engine.Session

private val UNIT = FloatArray(256) { it / 255f }

/** Writes images, uint8 [H, W, C], into the rows of a float32 array [B, C, H, W], their bytes divided by 255. */
internal class PixelWriter(private val images: Images) {
    private val image = ByteArray(images.imageSize)
    private val row = FloatArray(images.imageSize)

    /** Write image [index] as row [b] of [into]; [change] may give other bytes in its place. */
    fun write(index: Int, into: Floats, b: Int, change: (ByteArray) -> ByteArray = { it }) {
        images.read(index, image)
        val bytes = change(image)
        val channels = images.channels
        val plane = images.height * images.width
        for (c in 0 until channels) {
            for (i in 0 until plane) row[c * plane + i] = UNIT[bytes[i * channels + c].toInt() and 0xFF]
        }
        into.put(b * row.size, row)
    }
}

/**
 * Logits of images in fixed batches, by a program that takes state and x and gives logits. Owns the arrays of the batch and of the
 * logits, so that its session sees the same ones every time; used by one thread at a time.
 */
internal class BatchClassifier(private val program: Program, private val session: Session) {
    private val state = program.inputs.filter { it.role == Role.STATE }
    private val x = program.inputs.single { it.role == Role.BATCH }.let { it.name to Floats.zeros(it.shape) }
    private val logits = program.outputs.single().let { it.name to Floats.zeros(it.shape) }

    /**
     * Logits [M, K] of the images at M positions; a short batch is filled cyclically. [state] gives the array of a value by its
     * name; [between] is called before each batch.
     */
    fun logits(state: (String) -> Floats, images: Images, positions: IntArray, between: () -> Unit = {}): Array<FloatArray> {
        val m = positions.size
        val out = Array(m) { FloatArray(logits.second.shape[1]) }
        val writer = PixelWriter(images)
        val inputs = this.state.associate { it.name to state(it.binds) } + x
        for (start in 0 until m step program.batch) {
            between()
            for (b in 0 until program.batch) writer.write(positions[(start + b) % m], x.second, b)
            session.run(inputs, mapOf(logits))
            for (b in 0 until minOf(program.batch, m - start)) {
                val row = out[start + b]
                for (k in row.indices) row[k] = logits.second[b * row.size + k]
            }
        }
        return out
    }
}

/** The place of the largest number, the first of equal ones. */
internal fun FloatArray.best(): Int {
    var best = 0
    for (i in 1 until size) if (this[i] > this[best]) best = i
    return best
}
