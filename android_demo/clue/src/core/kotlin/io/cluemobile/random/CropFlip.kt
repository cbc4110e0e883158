package io.cluemobile.random

/** The crop and the flip of a sample: [dy] and [dx] are the top and left edge of the cut in the padded image. */
internal class Move(val dy: Int, val dx: Int, val flip: Boolean)

/** What the methods' authors pad with, in pixels. */
internal const val PAD = 4

/** The move of a sample in an epoch (contract/rng.md, section 8). */
internal fun augmentation(draws: Draws, position: Long, pad: Int = PAD): Move {
    val span = 2L * pad + 1
    val words = draws.words(position, 3)
    return Move(((words[0] * span) ushr 32).toInt(), ((words[1] * span) ushr 32).toInt(), words[2] >= 1L shl 31)
}

/**
 * Pads an image (uint8 [height, width, channels]) with [pad] black pixels on every side, cuts its size out again and mirrors it if
 * asked; [into] gets the result.
 */
internal fun cropFlip(image: ByteArray, height: Int, width: Int, channels: Int, move: Move, into: ByteArray, pad: Int = PAD) {
    into.fill(0)
    val down = move.dy - pad
    val right = move.dx - pad
    for (row in maxOf(0, -down) until minOf(height, height - down)) {
        for (column in 0 until width) {
            val source = right + if (move.flip) width - 1 - column else column
            if (source !in 0 until width) continue
            val from = ((row + down) * width + source) * channels
            image.copyInto(into, (row * width + column) * channels, from, from + channels)
        }
    }
}
