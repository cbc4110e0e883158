package io.cluemobile.run

import io.cluemobile.Contract
import io.cluemobile.files.sha256
import io.cluemobile.json.int
import io.cluemobile.json.list
import io.cluemobile.json.number
import io.cluemobile.json.objects
import io.cluemobile.json.text
import io.cluemobile.json.whole
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

/** contract/verify_kat.json. */
class ProbesTest {
    private val answers = Contract.json("verify_kat.json")

    private fun images(n: Int, height: Int, width: Int, channels: Int): ArrayImages {
        val bytes = ByteArray(n * height * width * channels) { at ->
            val (c, x) = at % channels to at / channels % width
            val (y, i) = at / channels / width % height to at / channels / width / height
            (37 * i + 11 * y + 5 * x + 101 * c + i * y * x).toByte()
        }
        return ArrayImages(n, height, width, channels, bytes)
    }

    @Test
    fun `probes have the contract's bytes`() {
        for (case in answers.objects("probes")) {
            val samples = images(case.int("n"), case.int("height"), case.int("width"), case.int("channels"))
            val made = makeProbes(samples, case.whole("seed"), case.int("count"))
            assertEquals(case.list("first"), made.bytes.take(12).map { it.toLong() and 0xFF })
            assertEquals(case.text("sha256"), sha256(made.bytes))
        }
    }

    @Test
    fun `the samples that are held out are the contract's`() {
        for (case in answers.objects("holdout")) {
            val n = case.int("n")
            val all = Labelled(ArrayImages(n, 1, 1, 1, ByteArray(n) { it.toByte() }), IntArray(n) { it })
            val (mine, held) = split(all, case.number("holdout"), case.whole("seed"))
            assertEquals(case.list("held_out"), held.labels.map { it.toLong() })
            assertEquals((0 until n).toList() - held.labels.toSet(), mine.labels.toList())
            assertEquals(planned(n, case.number("holdout")), mine.images.count)
            val pixel = ByteArray(1)
            held.labels.forEachIndexed { i, label ->
                held.images.read(i, pixel)
                assertEquals(label.toByte(), pixel[0])
            }
        }
    }

    @Test
    fun `what is compared leaves the forgotten classes aside`() {
        val before = arrayOf(floatArrayOf(3f, 2f, 1f), floatArrayOf(1f, 2f, 2f), floatArrayOf(9f, 0f, 1f))
        val after = arrayOf(floatArrayOf(0f, 2f, 1f), floatArrayOf(5f, 2f, 2f), floatArrayOf(9f, 1f, 0f))
        val found = compareProbes(before, after, setOf(0))
        assertEquals(200.0 / 3, found.kept, 1e-9)
        assertEquals(200.0 / 3, found.largestShareBefore, 1e-9)
        assertEquals(200.0 / 3, found.largestShareAfter, 1e-9)
    }
}
