package io.cluemobile.android

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import io.cluemobile.files.between
import io.cluemobile.pictures.JpegPixels
import io.cluemobile.pictures.PictureHeader
import java.io.IOException
import java.nio.ByteBuffer

private const val RGBA = 4
private const val RGB = 3

/**
 * Android's decoder of JPEGs. Nothing is scaled, and the bytes of the bitmap are taken as they are: `getPixels` would convert them from the
 * picture's profile to sRGB. Only a profile that Android cannot describe is applied by the decoder itself.
 */
internal object BitmapJpeg : JpegPixels {
    override fun decode(file: ByteArray, header: PictureHeader): ByteArray {
        val options = BitmapFactory.Options().apply {
            inScaled = false
            inPreferredConfig = Bitmap.Config.ARGB_8888
        }
        val bitmap = BitmapFactory.decodeByteArray(file, 0, file.size, options) ?: throw IOException("the decoder gave up on it")
        try {
            if (bitmap.width != header.width || bitmap.height != header.height || bitmap.config != Bitmap.Config.ARGB_8888) {
                throw IOException("the decoder made another picture of it")
            }
            return rgb(bitmap)
        } finally {
            bitmap.recycle()
        }
    }

    private fun rgb(bitmap: Bitmap): ByteArray {
        val width = bitmap.width
        val rows = ByteBuffer.allocateDirect(Math.multiplyExact(bitmap.rowBytes, bitmap.height))
        bitmap.copyPixelsToBuffer(rows)
        val out = ByteArray(Math.multiplyExact(width * RGB, bitmap.height))
        val row = ByteArray(width * RGBA)
        for (y in 0 until bitmap.height) {
            val start = y * bitmap.rowBytes
            rows.between(start, start + row.size).get(row)
            var to = y * width * RGB
            for (from in row.indices step RGBA) {
                for (channel in 0 until RGB) out[to++] = row[from + channel]
            }
        }
        return out
    }
}
