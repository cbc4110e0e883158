package io.cluemobile.pictures

import io.cluemobile.Pixels
import java.io.IOException
import java.util.zip.CRC32

private val SIGNATURE = byteArrayOf(0x89.toByte(), 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A)

private const val GREY = 0
private const val RGB = 2
private const val PALETTE = 3
private const val GREY_ALPHA = 4
private const val RGBA = 6
private val DEPTHS = mapOf(
    GREY to setOf(1, 2, 4, 8, 16),
    RGB to setOf(8, 16),
    PALETTE to setOf(1, 2, 4, 8),
    GREY_ALPHA to setOf(8, 16),
    RGBA to setOf(8, 16),
)
private val SAMPLES = mapOf(GREY to 1, RGB to 3, PALETTE to 1, GREY_ALPHA to 2, RGBA to 4)

// Adam7: column and row of the first pixel, step between columns and rows.
private val PASSES = listOf(
    intArrayOf(0, 0, 8, 8), intArrayOf(4, 0, 8, 8), intArrayOf(0, 4, 4, 8), intArrayOf(2, 0, 4, 4),
    intArrayOf(0, 2, 2, 4), intArrayOf(1, 0, 2, 2), intArrayOf(0, 1, 1, 2),
)
private val ONE_PASS = listOf(intArrayOf(0, 0, 1, 1))

internal fun isPng(file: ByteArray): Boolean = file.size > SIGNATURE.size && SIGNATURE.indices.all { file[it] == SIGNATURE[it] }

/**
 * A PNG (ISO/IEC 15948) whose chunks have been read. Decoders of systems apply profiles and round samples of 16 bits; this one gives
 * the samples themselves, of 16 bits the upper byte. Throws [IOException] for a damaged file.
 */
internal class Png(private val file: ByteArray) {
    private val depth: Int
    private val type: Int
    private val interlaced: Boolean
    private var palette = ByteArray(0)
    private var transparency: ByteArray? = null
    private val data = mutableListOf<IntRange>()

    // the samples of the pixel at hand, at their full depth
    private val raw = IntArray(4)

    val header: PictureHeader

    init {
        var at = SIGNATURE.size
        var orientation = 1
        var first: Int? = null
        while (true) {
            if (at + 12 > file.size) throw cutOff()
            val length = int(at)
            val name = String(file, at + 4, 4, Charsets.ISO_8859_1)
            if (length < 0 || length > file.size - at - 12) throw cutOff()
            checkSum(at, length, name)
            val content = at + 8
            if (first == null) {
                if (name != "IHDR" || length != 13) throw IOException("it does not begin with its size")
                first = content
            }
            when (name) {
                "PLTE" -> palette = file.copyOfRange(content, content + length)
                "tRNS" -> transparency = file.copyOfRange(content, content + length)
                "eXIf" -> orientation = exifOrientation(file, content, content + length)
                "IDAT" -> data += content until content + length
            }
            if (name == "IEND") break
            at += 12 + length
        }
        val begin = checkNotNull(first)
        depth = u8(file, begin + 8)
        type = u8(file, begin + 9)
        interlaced = u8(file, begin + 12) == 1
        val known = depth in DEPTHS[type].orEmpty() && u8(file, begin + 10) == 0 && u8(file, begin + 11) == 0 && u8(file, begin + 12) < 2
        if (!known || int(begin) < 1 || int(begin + 4) < 1) throw IOException("its header is damaged")
        if (type == PALETTE && (palette.isEmpty() || palette.size % 3 != 0)) throw IOException("its palette is damaged")
        header = PictureHeader(int(begin), int(begin + 4), orientation)
    }

    /** Its pixels on black, not turned. */
    fun pixels(grey: Boolean): Pixels {
        val (width, height) = header.width to header.height
        val channels = if (grey) 1 else 3
        val out = ByteArray(Math.multiplyExact(Math.multiplyExact(width, height), channels))
        val rows = PngRows(file, data)
        val perPixel = depth * SAMPLES.getValue(type)
        rows.use {
            for ((left, top, stepX, stepY) in if (interlaced) PASSES else ONE_PASS) {
                val columns = (width - left + stepX - 1) / stepX
                val lines = (height - top + stepY - 1) / stepY
                if (columns <= 0 || lines <= 0) continue
                rows.begin((columns.toLong() * perPixel + 7) / 8, maxOf(1, perPixel / 8))
                for (line in 0 until lines) {
                    val row = rows.next()
                    for (column in 0 until columns) {
                        put(row, column, grey, out, ((top + line * stepY) * width + left + column * stepX) * channels)
                    }
                }
            }
        }
        return Pixels(height, width, channels, out)
    }

    private fun put(row: ByteArray, column: Int, grey: Boolean, out: ByteArray, at: Int) {
        val count = SAMPLES.getValue(type)
        for (index in 0 until count) raw[index] = sample(row, column * count + index)
        val alpha: Int
        val red: Int
        val green: Int
        val blue: Int
        if (type == PALETTE) {
            val entry = 3 * raw[0]
            if (entry + 2 >= palette.size) throw IOException("it has a colour that its palette lacks")
            red = u8(palette, entry)
            green = u8(palette, entry + 1)
            blue = u8(palette, entry + 2)
            alpha = transparency?.getOrNull(raw[0])?.let { it.toInt() and 255 } ?: 255
        } else {
            val colours = if (type == RGB || type == RGBA) 3 else 1
            red = eight(raw[0])
            green = if (colours == 3) eight(raw[1]) else red
            blue = if (colours == 3) eight(raw[2]) else red
            alpha = if (count > colours) eight(raw[colours]) else if (isTransparent(count)) 0 else 255
        }
        if (grey) {
            out[at] = luma(onBlack(red, alpha), onBlack(green, alpha), onBlack(blue, alpha))
        } else {
            out[at] = onBlack(red, alpha).toByte()
            out[at + 1] = onBlack(green, alpha).toByte()
            out[at + 2] = onBlack(blue, alpha).toByte()
        }
    }

    /** Whether the sample values are those that tRNS names, at their full depth. */
    private fun isTransparent(count: Int): Boolean {
        val named = transparency ?: return false
        return named.size >= 2 * count && (0 until count).all { raw[it] == u16(named, 2 * it) }
    }

    private fun sample(row: ByteArray, index: Int): Int = when (depth) {
        16 -> u8(row, 2 * index) shl 8 or u8(row, 2 * index + 1)
        8 -> u8(row, index)
        else -> u8(row, index * depth / 8) shr (8 - depth - index * depth % 8) and ((1 shl depth) - 1)
    }

    private fun eight(value: Int): Int = when (depth) {
        16 -> value shr 8
        8 -> value
        else -> value * (255 / ((1 shl depth) - 1))
    }

    private fun checkSum(at: Int, length: Int, name: String) {
        val sum = CRC32().apply { update(file, at + 4, length + 4) }.value.toInt()
        if (sum != int(at + 8 + length)) throw IOException("its part $name is damaged")
    }

    private fun int(at: Int): Int = u16(file, at) shl 16 or u16(file, at + 2)
}
