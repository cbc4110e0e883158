package io.cluemobile.jvm

import io.cluemobile.pictures.JpegPixels
import io.cluemobile.pictures.PictureHeader
import java.awt.image.Raster
import java.io.ByteArrayInputStream
import java.io.IOException
import javax.imageio.IIOException
import javax.imageio.ImageIO

private const val RGB = 3

/** The JVM's decoder of JPEGs. The samples are taken as they are: `getRGB` would apply a profile of its own to grey ones. */
internal object ImageIoJpeg : JpegPixels {
    override fun decode(file: ByteArray, header: PictureHeader): ByteArray {
        val raster = try {
            ImageIO.createImageInputStream(ByteArrayInputStream(file)).use { stream ->
                val reader = ImageIO.getImageReadersByFormatName("jpeg").next()
                try {
                    reader.setInput(stream, true, true)
                    reader.read(0).raster
                } finally {
                    reader.dispose()
                }
            }
        } catch (error: IIOException) {
            throw IOException(error.message, error)
        }
        if (raster.width != header.width || raster.height != header.height) throw IOException("the decoder made another picture of it")
        return rgb(raster)
    }

    private fun rgb(raster: Raster): ByteArray {
        val bands = raster.numBands
        if (bands != 1 && bands != RGB) throw IOException("it has $bands channels")
        val out = ByteArray(raster.width * raster.height * RGB)
        val row = IntArray(raster.width * bands)
        var at = 0
        for (y in 0 until raster.height) {
            raster.getPixels(0, y, raster.width, 1, row)
            for (x in 0 until raster.width) {
                for (channel in 0 until RGB) out[at++] = row[if (bands == 1) x else RGB * x + channel].toByte()
            }
        }
        return out
    }
}
