package io.cluemobile.pictures

import io.cluemobile.ImageException
import io.cluemobile.Pixels
import io.cluemobile.json.StrictJson
import io.cluemobile.json.asObject
import io.cluemobile.jvm.JvmPlatform
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.assertThrows
import java.util.Base64
import java.util.zip.CRC32
import kotlin.math.abs

/** Pictures with the pixels that pi_runtime makes of them (src/test/resources/pictures.json). */
class PictureDecoderTest {
    private val decoder = JvmPlatform().images
    private val pictures = checkNotNull(javaClass.getResourceAsStream("/pictures.json")).use {
        StrictJson.parse(it.readBytes(), 1 shl 20).asObject()
    }

    @TestFactory
    fun `a PNG has the same pixels as on the Pi`(): List<DynamicTest> = cases("png").map { case ->
        DynamicTest.dynamicTest(case["name"] as String) {
            for ((key, grey) in listOf("rgb" to false, "grey" to true)) {
                val pixels = decode(bytes(case, "file"), grey)
                assertEquals(case["height"], pixels.height.toLong())
                assertEquals(case["width"], pixels.width.toLong())
                assertArrayEquals(bytes(case, key), pixels.bytes, key)
            }
        }
    }

    @TestFactory
    fun `a JPEG is upright and within the bounds of the contract`(): List<DynamicTest> = cases("jpeg").map { case ->
        DynamicTest.dynamicTest(case["name"] as String) {
            val pixels = decode(bytes(case, "file"))
            assertEquals(case["height"], pixels.height.toLong())
            assertEquals(case["width"], pixels.width.toLong())
            // the mean, since chroma that is halved may be enlarged in several ways
            val expected = bytes(case, "rgb")
            val differences = expected.indices.map { abs((expected[it].toInt() and 255) - (pixels.bytes[it].toInt() and 255)) }
            val mean = differences.average()
            assertTrue(mean <= if (case["name"] == "smooth") 1.0 else 8.0, "differs by $mean")
        }
    }

    @Test
    fun `every file that ends too early is refused`() {
        for (kind in listOf("png", "jpeg")) {
            val file = bytes(cases(kind).first(), "file")
            for (size in 0 until file.size) assertThrows<ImageException>("$kind of $size bytes") { decode(file.copyOf(size)) }
        }
    }

    @Test
    fun `a PNG with a flipped bit is refused`() {
        val file = bytes(cases("png").first(), "file")
        for (at in 8 until file.size) {
            val flipped = file.copyOf().also { it[at] = (it[at].toInt() xor 1).toByte() }
            assertThrows<ImageException>("byte $at") { decode(flipped) }
        }
    }

    @Test
    fun `a picture that is too large is refused before it is decoded`() {
        val file = bytes(cases("png").first(), "file")
        val header = file.copyOf()
        for (at in 16..23) header[at] = if (at % 4 == 3) 0 else 1
        val sum = CRC32().apply { update(header, 12, 17) }.value.toInt()
        for (byte in 0..3) header[29 + byte] = (sum shr (24 - 8 * byte)).toByte()
        val told = assertThrows<ImageException> { decode(header) }.message.orEmpty()
        assertTrue("65792 x 65792" in told || "16843008" in told, told)
        assertThrows<ImageException> { decoder.decode({ file.inputStream() }, "small", grey = false, mostPixels = 34) }
        assertEquals(35, decoder.decode({ file.inputStream() }, "small", grey = true, mostPixels = 35).bytes.size)
    }

    @Test
    fun `what cannot be read is told in a sentence with the name`() {
        val sentences = mapOf(
            ByteArray(0) to "is empty",
            "GIF89a, no more".toByteArray() to "must be a JPEG or PNG",
            Base64.getDecoder().decode(pictures["cmyk"] as String) to "CMYK",
        )
        for ((file, part) in sentences) {
            val told = assertThrows<ImageException> { decode(file) }.message.orEmpty()
            assertTrue(part in told && "holiday" in told, told)
        }
    }

    private fun decode(file: ByteArray, grey: Boolean = false): Pixels = decoder.decode({ file.inputStream() }, "holiday", grey)

    private fun cases(kind: String): List<Map<String, Any?>> = (pictures[kind] as List<*>).map { it.asObject() }

    private fun bytes(case: Map<String, Any?>, key: String): ByteArray = Base64.getDecoder().decode(case[key] as String)
}
