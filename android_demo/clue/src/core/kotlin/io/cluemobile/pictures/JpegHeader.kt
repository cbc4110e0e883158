package io.cluemobile.pictures

import java.io.IOException

private const val START = 0xD8
private const val END = 0xD9
private const val SCAN = 0xDA
private const val EXIF_SEGMENT = 0xE1
private const val RESTARTS = 0xD0
private const val LAST_RESTART = 0xD7

// Start of frame: baseline, extended, progressive; the others are arithmetic, lossless or hierarchical, which decoders do not read.
private val FRAMES = 0xC0..0xC2
private val OTHER_FRAMES = setOf(0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
private val EXIF = "Exif\u0000\u0000".toByteArray(Charsets.ISO_8859_1)

internal fun isJpeg(file: ByteArray): Boolean =
    file.size > 2 && u8(file, 0) == 0xFF && u8(file, 1) == START && u8(file, 2) == 0xFF

/**
 * Size, orientation and kind of a JPEG; that it has its end is checked, since decoders fill up with grey what is missing.
 *
 * Throws [IOException] for one that is cut off or has no frame.
 */
internal fun jpegHeader(file: ByteArray): PictureHeader {
    var frame: PictureHeader? = null
    var orientation: Int? = null
    var at = 2
    while (true) {
        at = nextMarker(file, at)
        val marker = u8(file, at - 1)
        if (marker == END) break
        if (marker == START || marker == 0x01 || marker in RESTARTS..LAST_RESTART) continue
        val length = u16(file, at)
        if (length < 2 || at + length > file.size) throw cutOff()
        if (marker in FRAMES && frame == null) frame = frame(file, at)
        if (marker in OTHER_FRAMES) throw IOException("it is of a rare kind of JPEG")
        if (marker == EXIF_SEGMENT && orientation == null) orientation = exif(file, at + 2, at + length)
        at += length
        if (marker == SCAN) at = endOfScan(file, at)
    }
    val found = frame ?: throw IOException("it has no picture")
    return PictureHeader(found.width, found.height, orientation ?: 1, found.refusal)
}

private fun frame(file: ByteArray, at: Int): PictureHeader {
    if (u16(file, at) < 8) throw IOException("its header is damaged")
    val (bits, height, width, components) = listOf(u8(file, at + 2), u16(file, at + 3), u16(file, at + 5), u8(file, at + 7))
    if (height == 0 || width == 0) throw IOException("it has no size")
    val refusal = when {
        bits != 8 -> "has samples of $bits bits"
        components == 4 -> "has CMYK colours, which this device would give only by a profile of its own"
        components != 1 && components != 3 -> "has $components channels"
        else -> null
    }
    return PictureHeader(width, height, 1, refusal)
}

/** The position behind the marker that comes next at or after [from]. */
private fun nextMarker(file: ByteArray, from: Int): Int {
    var at = from
    while (at < file.size && u8(file, at) != 0xFF) at++
    while (at < file.size && u8(file, at) == 0xFF) at++
    if (at >= file.size) throw cutOff()
    return at + 1
}

/** Where the marker stands that ends the coded data which begins at [from]. */
private fun endOfScan(file: ByteArray, from: Int): Int {
    var at = from
    while (at + 1 < file.size) {
        if (u8(file, at) == 0xFF) {
            val next = u8(file, at + 1)
            if (next != 0 && next != 0xFF && next !in RESTARTS..LAST_RESTART) return at
        }
        at++
    }
    throw cutOff()
}

private fun exif(file: ByteArray, start: Int, end: Int): Int? {
    if (end - start < EXIF.size || EXIF.indices.any { file[start + it] != EXIF[it] }) return null
    return exifOrientation(file, start + EXIF.size, end)
}

/** The tag 0x0112 of the TIFF structure in [file] from [start] to [end]; 1 where it cannot be read. */
internal fun exifOrientation(file: ByteArray, start: Int, end: Int): Int {
    fun number(at: Int, bytes: Int, little: Boolean): Long {
        if (at < start || at + bytes > end) return -1
        return (0 until bytes).fold(0L) { sum, i -> sum shl 8 or u8(file, if (little) at + bytes - 1 - i else at + i).toLong() }
    }
    if (end - start < 8) return 1
    val little = when (u16(file, start)) {
        0x4949 -> true
        0x4D4D -> false
        else -> return 1
    }
    val offset = number(start + 4, 4, little)
    if (number(start + 2, 2, little) != 42L || offset < 8 || offset > end - start) return 1
    val directory = start + offset.toInt()
    val count = number(directory, 2, little)
    for (entry in 0 until count) {
        val at = directory + 2 + 12 * entry.toInt()
        if (number(at, 2, little) != 0x0112L) continue
        val bytes = mapOf(3L to 2, 4L to 4)[number(at + 2, 2, little)] ?: return 1
        return number(at + 8, bytes, little).toInt()
    }
    return 1
}

internal fun u8(file: ByteArray, at: Int): Int = file[at].toInt() and 255

internal fun u16(file: ByteArray, at: Int): Int {
    if (at + 2 > file.size) throw cutOff()
    return u8(file, at) shl 8 or u8(file, at + 1)
}

internal fun cutOff(): IOException = IOException("it ends too early")
