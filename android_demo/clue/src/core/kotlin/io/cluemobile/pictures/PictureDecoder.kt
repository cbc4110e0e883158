package io.cluemobile.pictures

import io.cluemobile.ImageDecoder
import io.cluemobile.ImageException
import io.cluemobile.Pixels
import java.io.ByteArrayOutputStream
import java.io.IOException
import java.io.InputStream

/** Takes a JPEG apart, which is the system's task: its colours as they stand in the file, three bytes a pixel, row by row. */
internal fun interface JpegPixels {
    /**
     * The pixels of a [file] that [header] describes, not turned. Profiles of colours are not applied. Throws [IOException] for one
     * that the system's decoder gives up on.
     */
    fun decode(file: ByteArray, header: PictureHeader): ByteArray
}

/**
 * Pictures by the table "Decode" of contract/resize.md: PNG in the runtime's own code, bit for bit the same everywhere; JPEG by the
 * system, after its header was read and its size found allowed.
 */
internal class PictureDecoder(private val jpeg: JpegPixels) : ImageDecoder {
    override fun decode(open: () -> InputStream, name: String, grey: Boolean, mostPixels: Int): Pixels = try {
        val file = open().use { read(it, name) }
        when {
            file.isEmpty() -> throw ImageException("$name is empty (0 bytes): it is no image")
            isPng(file) -> {
                val png = Png(file)
                check(png.header, name, mostPixels)
                upright(png.pixels(grey), png.header.orientation)
            }
            isJpeg(file) -> {
                val header = jpegHeader(file)
                check(header, name, mostPixels)
                val rgb = jpeg.decode(file, header)
                upright(toChannels(rgb, header, grey), header.orientation)
            }
            else -> throw ImageException("$name is no image that can be read: it must be a JPEG or PNG")
        }
    } catch (error: IOException) {
        throw ImageException("cannot read the image $name: ${error.message ?: error.javaClass.simpleName}", error)
    } catch (error: OutOfMemoryError) {
        throw ImageException("$name does not fit in memory: make the image smaller", error)
    }

    private fun read(stream: InputStream, name: String): ByteArray {
        val content = ByteArrayOutputStream()
        val chunk = ByteArray(CHUNK)
        while (true) {
            val count = stream.read(chunk)
            if (count < 0) return content.toByteArray()
            content.write(chunk, 0, count)
            if (content.size() > ImageDecoder.MOST_BYTES) {
                throw ImageException("$name has more than ${ImageDecoder.MOST_BYTES} bytes, which images may have")
            }
        }
    }

    private fun check(header: PictureHeader, name: String, mostPixels: Int) {
        val pixels = header.width.toLong() * header.height
        if (maxOf(header.width, header.height) > ImageDecoder.MOST_SIDE || pixels > mostPixels) {
            throw ImageException(
                "$name has ${header.width} x ${header.height} pixels: up to $mostPixels and ${ImageDecoder.MOST_SIDE} a side are allowed",
            )
        }
        if (header.refusal != null) throw ImageException("$name ${header.refusal}: convert it to RGB or grey of 8 bits first")
    }

    private fun toChannels(rgb: ByteArray, header: PictureHeader, grey: Boolean): Pixels {
        if (!grey) return Pixels(header.height, header.width, 3, rgb)
        val bytes = ByteArray(header.width * header.height) { luma(rgb, 3 * it) }
        return Pixels(header.height, header.width, 1, bytes)
    }

    private companion object {
        const val CHUNK = 1 shl 16
    }
}

/** What is known of a picture before its pixels are; [refusal] says why it is not read although it may be whole. */
internal class PictureHeader(val width: Int, val height: Int, val orientation: Int, val refusal: String? = null)

/** The grey of the RGB at [at] (contract/resize.md, "grey models"). */
internal fun luma(rgb: ByteArray, at: Int): Byte = luma(rgb[at].toInt() and 255, rgb[at + 1].toInt() and 255, rgb[at + 2].toInt() and 255)

internal fun luma(red: Int, green: Int, blue: Int): Byte = ((19595 * red + 38470 * green + 7471 * blue + 32768) shr 16).toByte()

/** [value] of that [alpha] on black. */
internal fun onBlack(value: Int, alpha: Int): Int = (2 * value * alpha + 255) / 510

/** The picture as its EXIF [orientation] says that it is held; values other than 2 to 8 leave it as it is. */
internal fun upright(picture: Pixels, orientation: Int): Pixels {
    if (orientation !in 2..8) return picture
    val height = picture.height
    val width = picture.width
    val channels = picture.channels
    val turned = orientation >= 5
    val out = ByteArray(picture.bytes.size)
    val outWidth = if (turned) height else width
    val outHeight = if (turned) width else height
    var to = 0
    for (row in 0 until outHeight) {
        for (column in 0 until outWidth) {
            val y = when (orientation) {
                2 -> row
                3, 4 -> height - 1 - row
                5, 8 -> column
                else -> height - 1 - column
            }
            val x = when (orientation) {
                2, 3 -> width - 1 - column
                4 -> column
                5, 6 -> row
                else -> width - 1 - row
            }
            val from = (y * width + x) * channels
            for (channel in 0 until channels) out[to++] = picture.bytes[from + channel]
        }
    }
    return Pixels(outHeight, outWidth, channels, out)
}
