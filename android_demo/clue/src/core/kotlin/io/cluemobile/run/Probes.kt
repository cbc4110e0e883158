package io.cluemobile.run

import io.cluemobile.random.Draws
import io.cluemobile.random.Streams
import io.cluemobile.random.orderOf

/*
 * Images made of a request's samples and noise, on which old and new weights are compared without any image of the other classes
 * (docs/runtime-contract.md, "The retain-free signal"). Whole numbers only, so that every language makes the same bytes.
 */

/** The kinds: the number of fields or tiles on a side. */
private val MIX_GRIDS = listOf(4, 2)
private val TILE_GRIDS = listOf(2, 4)
private const val KINDS = 5
private const val FIRST_CELL = 4

/** [count] probes (rounded down to a multiple of the five kinds, at least one of each) from the samples, kind after kind. */
internal fun makeProbes(images: Images, seed: Long, count: Int): ArrayImages {
    val each = maxOf(1, count / KINDS)
    val size = images.imageSize
    val out = ByteArray(Math.multiplyExact(KINDS * each, size))
    val maker = ProbeMaker(images)
    for (kind in 0 until KINDS) {
        val draws = Draws(seed, Streams.PROBES, kind.toLong())
        for (p in 0 until each) maker.make(kind, draws, p.toLong()).copyInto(out, (kind * each + p) * size)
    }
    return ArrayImages(KINDS * each, images.height, images.width, images.channels, out)
}

private class ProbeMaker(private val images: Images) {
    private val height = images.height
    private val width = images.width
    private val channels = images.channels
    private val first = ByteArray(images.imageSize)
    private val second = ByteArray(images.imageSize)
    private val made = ByteArray(images.imageSize)

    fun make(kind: Int, draws: Draws, position: Long): ByteArray {
        val grid = (MIX_GRIDS + TILE_GRIDS).getOrElse(kind) { 0 }
        val cells = grid * grid * if (kind < MIX_GRIDS.size) channels else 1
        val words = draws.words(position, FIRST_CELL + cells)
        images.read(((words[0] * images.count) ushr 32).toInt(), first)
        images.read(((words[1] * images.count) ushr 32).toInt(), second)
        when {
            kind < MIX_GRIDS.size -> mix(words, grid)
            grid > 0 -> tiles(words, grid)
            else -> for (i in made.indices) made[i] = (byte(first, i) - byte(second, i) + 128).coerceIn(0, 255).toByte()
        }
        return made
    }

    /** The image under grid x grid fields of one random colour each. */
    private fun mix(words: LongArray, grid: Int) {
        for (y in 0 until height) {
            for (x in 0 until width) {
                val field = (y * grid / height) * grid + x * grid / width
                for (c in 0 until channels) {
                    val i = (y * width + x) * channels + c
                    val colour = (words[FIRST_CELL + field * channels + c] ushr 24).toInt()
                    made[i] = ((byte(first, i) + colour + 1) shr 1).toByte()
                }
            }
        }
    }

    /** The image's tiles in the order that sorts their words; what is left over at the right and at the bottom stays. */
    private fun tiles(words: LongArray, grid: Int) {
        first.copyInto(made)
        val order = orderOf(words.copyOfRange(FIRST_CELL, words.size))
        val tall = height / grid
        val wide = width / grid
        for (tile in 0 until grid * grid) {
            for (y in 0 until tall) {
                val to = ((tile / grid * tall + y) * width + tile % grid * wide) * channels
                val from = ((order[tile] / grid * tall + y) * width + order[tile] % grid * wide) * channels
                first.copyInto(made, to, from, from + wide * channels)
            }
        }
    }

    private fun byte(image: ByteArray, i: Int): Int = image[i].toInt() and 0xFF
}

/**
 * [kept]: percent of the probes whose best class is the same before and after, the forgotten classes left aside. The largest shares:
 * percent that fell on one and the same of all classes.
 */
internal class Comparison(val probes: Int, val kept: Double, val largestShareBefore: Double, val largestShareAfter: Double)

/** Compare logits of the same probes; the first of equal logits is the best. */
internal fun compareProbes(before: Array<FloatArray>, after: Array<FloatArray>, forgotten: Set<Int>): Comparison {
    val left = before[0].indices.filter { it !in forgotten }
    val kept = before.indices.count { bestOf(before[it], left) == bestOf(after[it], left) }
    return Comparison(before.size, 100.0 * kept / before.size, largestShare(before), largestShare(after))
}

private fun bestOf(logits: FloatArray, among: List<Int>): Int {
    var best = among[0]
    for (k in among) if (logits[k] > logits[best]) best = k
    return best
}

private fun largestShare(logits: Array<FloatArray>): Double {
    val counts = IntArray(logits[0].size)
    for (row in logits) counts[row.best()]++
    return 100.0 * counts.max() / logits.size
}
