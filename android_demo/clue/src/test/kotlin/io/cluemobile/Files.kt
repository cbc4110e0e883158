package io.cluemobile

import java.nio.file.Files
import java.nio.file.Path

/** Every regular file of a folder and its folders. */
internal fun filesIn(folder: Path): List<Path> =
    Files.walk(folder).use { paths -> paths.filter { Files.isRegularFile(it) }.toList() }

/** Whether [needle] stands somewhere in this content. */
internal fun ByteArray.contains(needle: ByteArray): Boolean =
    (0..size - needle.size).any { start -> needle.indices.all { this[start + it] == needle[it] } }
