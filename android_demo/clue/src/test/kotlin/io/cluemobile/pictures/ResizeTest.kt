package io.cluemobile.pictures

import io.cluemobile.Contract
import io.cluemobile.ImageException
import io.cluemobile.Pixels
import io.cluemobile.files.sha256
import io.cluemobile.json.int
import io.cluemobile.json.objects
import io.cluemobile.json.text
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import java.util.Base64

/** The resize against contract/resize/golden.json. */
internal class ResizeTest {
    private val golden = Contract.json("resize/golden.json")

    @Test
    fun `the known weights`() {
        for (case in golden.objects("weights")) {
            val n = case.int("n")
            val rows = Resize.taps(n, case.int("m")).map { taps ->
                LongArray(n).also { row -> taps.weights.forEachIndexed { k, weight -> row[taps.first + k] = weight.toLong() } }
            }
            assertEquals(case["weights"], rows.map { it.toList() })
        }
    }

    @Test
    fun `the known images`() {
        for (case in golden.objects("images")) {
            val (height, width, channels) = listOf("height", "width", "channels").map { case.int(it) }
            val input = (case["input"] as String?)?.let { Base64.getDecoder().decode(it) } ?: formula(height, width, channels)
            assertEquals(case.text("input_sha256"), sha256(input))
            val image = Pixels(height, width, channels, input)
            val found = Resize.fit(image, case.int("to_height"), case.int("to_width"), case.text("fit"))
            assertArrayEquals(Base64.getDecoder().decode(case.text("output")), found.bytes, case.text("name"))
        }
    }

    private fun formula(height: Int, width: Int, channels: Int) = ByteArray(height * width * channels) { i ->
        val (y, x, c) = Triple(i / channels / width, i / channels % width, i % channels)
        ((31 * y + 17 * x * x + 101 * c + x * y) % 256).toByte()
    }

    @Test
    fun `weights are none negative and add up`() {
        for ((n, m) in listOf(1 to 65_535, 65_535 to 1, 7 to 3, 3 to 7, 1000 to 999, 31 to 32)) {
            for (taps in Resize.taps(n, m)) {
                assertEquals(1 shl 16, taps.weights.sum())
                assertEquals(0, taps.weights.count { it < 0 })
            }
        }
        assertThrows(ImageException::class.java) { Resize.taps(65_536, 3) }
    }
}
