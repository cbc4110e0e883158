package io.cluemobile.random

import io.cluemobile.ClueException

/** The streams that the runtime itself uses (contract/rng.md, section 2). */
internal object Streams {
    const val SHUFFLE = 1L
    const val AUGMENT = 2L
    const val PROBES = 3L
    const val HOLDOUT = 4L
    const val GOLDEN = 8L
}

private const val MOST = 0xFFFFFFFFL
private const val POWER_MINUS_32 = 1.0 / (1L shl 32)

/**
 * The numbers of one stream in one epoch, for the request with this [seed] (all 64 bits count).
 *
 * A number is a function of (seed, stream, epoch, position, block) alone, so nothing here has a state that matters; the object is
 * for one thread, since it reuses its block.
 */
internal class Draws(seed: Long, private val stream: Long, private val epoch: Long) {
    private val philox = Philox(seed, seed ushr 32)
    private val turn = Turn()

    init {
        check("stream", stream)
        check("epoch", epoch)
    }

    /** The first [count] raw words of a position, each from 0 to 2^32 - 1. */
    fun words(position: Long, count: Int, blockOffset: Long = 0): LongArray {
        val out = LongArray(count)
        each(position, count, blockOffset) { at, left ->
            for (i in 0 until left) out[at + i] = philox.word(i)
        }
        return out
    }

    /** [count] standard normal numbers of a position into [out] from [start] on (section 4). */
    fun normal(position: Long, count: Int, out: FloatArray, start: Int = 0, blockOffset: Long = 0) {
        each(position, count, blockOffset) { at, left ->
            turn.normal(philox.word0, philox.word1, out, start + at, left > 1)
            if (left > 2) turn.normal(philox.word2, philox.word3, out, start + at + 2, left > 3)
        }
    }

    /** [count] numbers in ([low], [high]], rounded to float32, into [out] from [start] on (section 3). */
    fun uniform(
        position: Long,
        count: Int,
        low: Double,
        high: Double,
        out: FloatArray,
        start: Int = 0,
        blockOffset: Long = 0,
    ) {
        val limit = Float.MAX_VALUE.toDouble()
        if (!(-limit <= low && low <= high && high <= limit)) {
            throw ClueException("a uniform draw needs finite bounds with low <= high, but they are $low and $high")
        }
        val width = high - low
        each(position, count, blockOffset) { at, left ->
            for (i in 0 until left) {
                val unit = (philox.word(i) + 1).toDouble() * POWER_MINUS_32
                out[start + at + i] = (low + width * unit).toFloat()
            }
        }
    }

    /** [count] whole numbers in 0 .. [n] - 1, 1 <= n <= 2^32. */
    fun integers(position: Long, count: Int, n: Long, blockOffset: Long = 0): LongArray {
        if (n !in 1..MOST + 1) throw ClueException("n must be a whole number from 1 to ${MOST + 1}, but it is $n")
        val out = LongArray(count)
        each(position, count, blockOffset) { at, left ->
            for (i in 0 until left) out[at + i] = (philox.word(i) * n) ushr 32
        }
        return out
    }

    /** Makes each block of a position that [count] numbers need; [take] gets the first number's place and how many are left, 1 to 4. */
    private inline fun each(position: Long, count: Int, blockOffset: Long, take: (at: Int, left: Int) -> Unit) {
        check("position", position)
        check("block_offset", blockOffset)
        if (blockOffset + (count + 3L) / 4 > MOST + 1) {
            throw ClueException("a sample has 2^32 blocks of 4 numbers, too few for $count from block $blockOffset")
        }
        var block = blockOffset
        var at = 0
        while (at < count) {
            philox.block(block++, position, epoch, stream)
            take(at, minOf(4, count - at))
            at += 4
        }
    }

    private fun check(name: String, value: Long) {
        if (value !in 0..MOST) throw ClueException("$name must be a whole number from 0 to $MOST, but it is $value")
    }
}

/** The order in which an epoch visits its [n] samples: a Fisher-Yates shuffle of 0 .. n - 1 (contract/rng.md, section 7). */
internal fun permutation(seed: Long, epoch: Long, n: Int, stream: Long = Streams.SHUFFLE): IntArray {
    if (n < 1) throw ClueException("n must be at least 1, but it is $n")
    val words = Draws(seed, stream, epoch).words(0, n - 1)
    val order = IntArray(n) { it }
    for (t in 0 until n - 1) {
        val i = n - 1 - t
        val j = ((words[t] * (i + 1L)) ushr 32).toInt()
        order[i] = order[j].also { order[j] = order[i] }
    }
    return order
}

/** The order of 0 until n for which [words] rise, the first of equal ones first. */
internal fun orderOf(words: LongArray): IntArray = words.indices.sortedBy { words[it] }.toIntArray()
