package io.cluemobile.random

import io.cluemobile.ClueException
import io.cluemobile.Contract
import io.cluemobile.files.hex
import io.cluemobile.json.JsonObject
import io.cluemobile.json.list
import io.cluemobile.json.number
import io.cluemobile.json.objects
import io.cluemobile.json.shape
import io.cluemobile.json.text
import io.cluemobile.json.whole
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

/** contract/rng_kat.json: every known answer, bit for bit. */
class RandomTest {
    private val answers = Contract.json("rng_kat.json")

    private fun cases(name: String): List<JsonObject> = answers.objects(name).also { check(it.isNotEmpty()) }

    private fun JsonObject.positions(): List<Long> = list("positions").map { it as Long }

    private fun JsonObject.draws(): Draws =
        Draws(java.lang.Long.parseUnsignedLong(text("seed"), 16), whole("stream"), whole("epoch"))

    private fun JsonObject.count(): Int = shape("shape").fold(1, Int::times)

    private fun words(list: List<Any?>): List<Long> = list.map { (it as String).toLong(16) }

    private fun bits(values: FloatArray): List<Long> = values.map { it.toRawBits().toLong() and 0xFFFFFFFFL }

    private fun floats(case: JsonObject, draw: Draws.(Long, FloatArray) -> Unit): FloatArray =
        case.positions().map { position -> FloatArray(case.count()).also { case.draws().draw(position, it) } }
            .fold(FloatArray(0)) { all, each -> all + each }

    private fun normals(case: JsonObject) =
        floats(case) { position, out -> normal(position, out.size, out, blockOffset = case.whole("block_offset")) }

    @Test
    fun `philox gives the blocks of the paper and of the contract`() {
        for (case in cases("philox")) {
            val (c0, c1, c2, c3) = words(case.list("counter"))
            val (k0, k1) = words(case.list("key"))
            val philox = Philox(k0, k1).apply { block(c0, c1, c2, c3) }
            assertEquals(words(case.list("words")), (0..3).map(philox::word))
        }
    }

    @Test
    fun `words, uniform numbers and integers`() {
        for (case in cases("words")) {
            val offset = case.whole("block_offset")
            val found = case.positions().flatMap { case.draws().words(it, case.whole("count").toInt(), offset).toList() }
            assertEquals(words(case.list("words")), found)
        }
        for (case in cases("uniform")) {
            val found = floats(case) { position, out ->
                uniform(position, out.size, case.number("low"), case.number("high"), out, blockOffset = case.whole("block_offset"))
            }
            assertEquals(words(case.list("bits")), bits(found))
        }
        for (case in cases("integers")) {
            val found = case.positions().flatMap {
                case.draws().integers(it, case.count(), case.whole("n"), case.whole("block_offset")).toList()
            }
            assertEquals(case.list("values"), found)
        }
    }

    @Test
    fun `logarithm, cosine and sine have the contract's bits`() {
        for (case in cases("neg_log")) {
            assertEquals(case.text("bits"), "%016x".format(negLog(case.whole("k")).toRawBits()))
        }
        for (case in cases("cos_sin")) {
            val turn = Turn().apply { of(case.whole("k")) }
            assertEquals(case.text("cos"), "%016x".format(turn.cos.toRawBits()))
            assertEquals(case.text("sin"), "%016x".format(turn.sin.toRawBits()))
        }
    }

    @Test
    fun `normal numbers, one by one and many`() {
        for (case in cases("normal")) assertEquals(words(case.list("bits")), bits(normals(case)))
        for (case in cases("normal_sha256")) {
            val values = normals(case)
            val bytes = ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
            bytes.asFloatBuffer().put(values)
            assertEquals(case.text("sha256"), MessageDigest.getInstance("SHA-256").digest(bytes.array()).hex())
        }
    }

    @Test
    fun `the shuffle, and the moves of crop and flip`() {
        for (case in cases("permutation")) {
            val seed = java.lang.Long.parseUnsignedLong(case.text("seed"), 16)
            val found = permutation(seed, case.whole("epoch"), case.whole("n").toInt())
            assertEquals(case.list("values"), found.map { it.toLong() })
        }
        for (case in cases("augmentation")) {
            val draws = Draws(java.lang.Long.parseUnsignedLong(case.text("seed"), 16), Streams.AUGMENT, case.whole("epoch"))
            val moves = case.positions().map { augmentation(draws, it, case.whole("pad").toInt()) }
            assertEquals(case.list("dy"), moves.map { it.dy.toLong() })
            assertEquals(case.list("dx"), moves.map { it.dx.toLong() })
            assertEquals(case.list("flip"), moves.map { it.flip })
        }
    }

    @Test
    fun `cropped and flipped images`() {
        for (case in cases("crop_flip")) {
            val (count, height, width, channels) = case.shape("shape")
            val input = case.list("input").map { (it as Long).toByte() }.toByteArray()
            val size = height * width * channels
            val found = (0 until count).flatMap { b ->
                val move = Move((case.list("dy")[b] as Long).toInt(), (case.list("dx")[b] as Long).toInt(), case.list("flip")[b] as Boolean)
                val out = ByteArray(size) { 77 }
                val image = input.copyOfRange(b * size, (b + 1) * size)
                cropFlip(image, height, width, channels, move, out, case.whole("pad").toInt())
                out.map { it.toLong() and 0xFF }
            }
            assertEquals(case.list("output"), found)
        }
    }

    @Test
    fun `an argument out of its range is refused`() {
        val draws = Draws(1, 16, 0)
        for (wrong in listOf<() -> Any>(
            { Draws(1, -1, 0) },
            { Draws(1, 16, 1L shl 32) },
            { draws.words(-1, 4) },
            { draws.words(0, 8, 0xFFFFFFFFL) },
            { draws.integers(0, 1, 0) },
            { draws.uniform(0, 1, 1.0, 0.0, FloatArray(1)) },
            { draws.uniform(0, 1, 0.0, Double.NaN, FloatArray(1)) },
            { permutation(1, 0, 0) },
        )) {
            assertThrows(ClueException::class.java) { wrong() }
        }
    }
}
