package io.cluemobile.pictures

import io.cluemobile.ImageDecoder
import io.cluemobile.ImageException
import io.cluemobile.Pixels
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

private const val BITS = 16
private const val HALF = 1L shl (2 * BITS - 1)

/** The input positions from [first] on that an output position is made of, and the weight of each; they add up to 2^16. */
internal class Taps(val first: Int, val weights: IntArray)

/** The resize of contract/resize.md: antialiased, in whole numbers, the same bytes in every language. */
internal object Resize {
    /** The taps of each of [m] output positions along an axis of [n]. Throws [ImageException] for a side beyond 65,535. */
    fun taps(n: Int, m: Int): List<Taps> {
        for (side in intArrayOf(n, m)) {
            if (side !in 1..ImageDecoder.MOST_SIDE) {
                throw ImageException("a side of $side pixels cannot be resized: sides are from 1 to ${ImageDecoder.MOST_SIDE}")
            }
        }
        val reach = 2L * max(n, m)
        return List(m) { i ->
            val centre = (2L * i + 1) * n
            // j counts where |(2j + 1) m - centre| < reach
            val first = max(0L, Math.floorDiv(centre - reach - m, 2L * m) + 1)
            val last = min(n - 1L, -Math.floorDiv(m - centre - reach, 2L * m) - 1)
            val sums = LongArray((last - first + 2).toInt())
            for (k in 1 until sums.size) {
                sums[k] = sums[k - 1] + reach - abs((2 * (first + k - 1) + 1) * m - centre)
            }
            val all = sums.last()
            fun rounded(sum: Long) = ((sum shl (BITS + 1)) + all) / (2 * all)
            Taps(first.toInt(), IntArray(sums.size - 1) { (rounded(sums[it + 1]) - rounded(sums[it])).toInt() })
        }
    }

    /** An image at the size [height] x [width]. Throws [ImageException] for a side beyond 65,535 pixels. */
    fun resize(image: Pixels, height: Int, width: Int): Pixels {
        if (image.height == height && image.width == width) return image
        val channels = image.channels
        val out = ByteArray(height * width * channels)
        val columns = taps(image.width, width)
        val row = IntArray(image.width * channels)
        taps(image.height, height).forEachIndexed { y, rows ->
            row.fill(0)
            rows.weights.forEachIndexed { k, weight -> addRow(image, rows.first + k, weight, row) }
            columns.forEachIndexed { x, taps ->
                for (c in 0 until channels) {
                    var sum = HALF
                    for (l in taps.weights.indices) sum += taps.weights[l].toLong() * row[(taps.first + l) * channels + c]
                    out[(y * width + x) * channels + c] = (sum shr (2 * BITS)).toByte()
                }
            }
        }
        return Pixels(height, width, channels, out)
    }

    /** [row] gets [weight] times row [y] of the image added; sums stay below 2^24. */
    private fun addRow(image: Pixels, y: Int, weight: Int, row: IntArray) {
        val start = y * row.size
        for (i in row.indices) row[i] += weight * (image.bytes[start + i].toInt() and 0xFF)
    }

    /** An image at the model's size, by the bundle's rule: "stretch" or "center-crop". */
    fun fit(image: Pixels, height: Int, width: Int, rule: String): Pixels =
        resize(if (rule == "center-crop") centre(image, height, width) else image, height, width)

    /** The largest part of the model's shape in the middle of an image. */
    private fun centre(image: Pixels, height: Int, width: Int): Pixels {
        val (rows, columns) = image.height.toLong() to image.width.toLong()
        return if (columns * height > rows * width) {
            val kept = max(1, (2 * rows * width + height) / (2 * height)).toInt()
            part(image, 0, (image.width - kept) / 2, image.height, kept)
        } else {
            val kept = max(1, (2 * columns * height + width) / (2 * width)).toInt()
            part(image, (image.height - kept) / 2, 0, kept, image.width)
        }
    }

    private fun part(image: Pixels, top: Int, left: Int, height: Int, width: Int): Pixels {
        val channels = image.channels
        val out = ByteArray(height * width * channels)
        for (y in 0 until height) {
            val from = ((top + y) * image.width + left) * channels
            image.bytes.copyInto(out, y * width * channels, from, from + width * channels)
        }
        return Pixels(height, width, channels, out)
    }
}
