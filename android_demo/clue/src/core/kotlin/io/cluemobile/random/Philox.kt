package io.cluemobile.random

private const val MASK = 0xFFFFFFFFL
private const val MULTIPLIER_0 = 0xD2511F53L
private const val MULTIPLIER_1 = 0xCD9E8D57L
private const val WEYL_0 = 0x9E3779B9L
private const val WEYL_1 = 0xBB67AE85L
private const val ROUNDS = 10

/**
 * Philox 4x32-10 (contract/rng.md, section 1; Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).
 *
 * The block that was made last is in [word0] to [word3], each from 0 to 2^32 - 1: fields instead of an array for each block, since
 * an epoch's noise takes millions of blocks.
 */
internal class Philox(key0: Long, key1: Long) {
    private val key0 = key0 and MASK
    private val key1 = key1 and MASK
    var word0: Long = 0
        private set
    var word1: Long = 0
        private set
    var word2: Long = 0
        private set
    var word3: Long = 0
        private set

    /** Makes the block of a counter of four 32-bit words. */
    fun block(counter0: Long, counter1: Long, counter2: Long, counter3: Long) {
        var c0 = counter0
        var c1 = counter1
        var c2 = counter2
        var c3 = counter3
        var k0 = key0
        var k1 = key1
        for (round in 0 until ROUNDS) {
            // Two 32-bit words fill the 64 bits of a product: the upper half must come down without a sign.
            val p0 = MULTIPLIER_0 * c0
            val p1 = MULTIPLIER_1 * c2
            c0 = (p1 ushr 32) xor c1 xor k0
            c1 = p1 and MASK
            c2 = (p0 ushr 32) xor c3 xor k1
            c3 = p0 and MASK
            k0 = (k0 + WEYL_0) and MASK
            k1 = (k1 + WEYL_1) and MASK
        }
        word0 = c0
        word1 = c1
        word2 = c2
        word3 = c3
    }

    /** Word [i] (0 to 3) of the block that was made last. */
    fun word(i: Int): Long = when (i) {
        0 -> word0
        1 -> word1
        2 -> word2
        else -> word3
    }
}
