package io.cluemobile.pictures

import java.io.IOException
import java.util.zip.DataFormatException
import java.util.zip.Inflater
import kotlin.math.abs

/** The rows of a PNG, inflated from the [parts] of the [file] and with the filters undone. */
internal class PngRows(private val file: ByteArray, private val parts: List<IntRange>) : AutoCloseable {
    private val inflater = Inflater()
    private var part = 0
    private var row = ByteArray(0)
    private var above = ByteArray(0)
    private var step = 1
    private val filter = ByteArray(1)

    /** Rows of so many [bytes] follow, [step] bytes from a pixel to the next (1 where several share a byte). */
    fun begin(bytes: Long, step: Int) {
        row = ByteArray(Math.toIntExact(bytes))
        above = ByteArray(row.size)
        this.step = step
    }

    /** The next row; it is valid until the one after the next is asked for. */
    fun next(): ByteArray {
        val before = row
        row = above
        above = before
        fill(filter)
        fill(row)
        when (filter[0].toInt()) {
            0 -> Unit
            1 -> for (i in step until row.size) add(i, u8(row, i - step))
            2 -> for (i in row.indices) add(i, u8(above, i))
            3 -> for (i in row.indices) add(i, (left(i) + u8(above, i)) / 2)
            4 -> for (i in row.indices) add(i, paeth(left(i), u8(above, i), if (i < step) 0 else u8(above, i - step)))
            else -> throw IOException("it has a filter that does not exist")
        }
        return row
    }

    private fun left(i: Int): Int = if (i < step) 0 else u8(row, i - step)

    private fun add(i: Int, value: Int) {
        row[i] = (row[i] + value).toByte()
    }

    private fun paeth(left: Int, up: Int, corner: Int): Int {
        val estimate = left + up - corner
        val a = abs(estimate - left)
        val b = abs(estimate - up)
        val c = abs(estimate - corner)
        return if (a <= b && a <= c) left else if (b <= c) up else corner
    }

    private fun fill(target: ByteArray) {
        var at = 0
        try {
            while (at < target.size) {
                val count = inflater.inflate(target, at, target.size - at)
                at += count
                if (count > 0) continue
                if (inflater.finished() || inflater.needsDictionary() || part == parts.size) throw cutOff()
                val next = parts[part++]
                inflater.setInput(file, next.first, next.last - next.first + 1)
            }
        } catch (error: DataFormatException) {
            throw IOException("its picture data is damaged", error)
        }
    }

    override fun close() {
        inflater.end()
    }
}
