package io.cluemobile.files

import io.cluemobile.NoSpaceException
import io.cluemobile.StorageException
import java.io.IOException
import java.io.UncheckedIOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.DirectoryIteratorException
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.NoSuchFileException
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption.APPEND
import java.nio.file.StandardOpenOption.CREATE
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.TRUNCATE_EXISTING
import java.nio.file.StandardOpenOption.WRITE
import java.nio.file.attribute.PosixFilePermissions
import java.security.MessageDigest

/*
 * Files that must survive a power cut: written beside their place, flushed to the disk, then renamed.
 */

private const val CHUNK = 1 shl 20
private val OWNER_ONLY = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"))

internal fun ByteArray.hex(): String = joinToString("") { "%02x".format(it) }

internal fun sha256(bytes: ByteArray): String = MessageDigest.getInstance("SHA-256").digest(bytes).hex()

/** The SHA-256 of a file's content, in hex. Throws [StorageException] when the file cannot be read. */
internal fun sha256File(path: Path): String = storage("read", path) {
    openRegular(path).use { channel ->
        val digest = MessageDigest.getInstance("SHA-256")
        val chunk = ByteBuffer.allocate(CHUNK)
        while (channel.read(chunk) >= 0) {
            digest.update(chunk.between(0, chunk.position()))
            chunk.between(0, CHUNK)
        }
        digest.digest().hex()
    }
}

/** The file opened for reading. Throws IOException, also for anything but a regular file: a pipe would wait for its writer. */
internal fun openRegular(path: Path): FileChannel {
    if (Files.exists(path) && !Files.isRegularFile(path)) throw IOException("it is no regular file")
    return FileChannel.open(path, READ)
}

/** The content of a file of up to [most] bytes. Throws [StorageException] when it is longer or cannot be read. */
internal fun readSmall(path: Path, most: Int): ByteArray = storage("read", path) {
    openRegular(path).use { channel ->
        if (channel.size() > most) throw IOException("it has ${channel.size()} bytes, up to $most are allowed")
        val content = ByteBuffer.allocate(channel.size().toInt())
        while (content.hasRemaining() && channel.read(content) >= 0) Unit
        content.array().copyOf(content.position())
    }
}

/** Flush the names in a folder. Throws IOException. */
internal fun syncFolder(folder: Path) {
    FileChannel.open(folder, READ).use { it.force(true) }
}

/**
 * Write the [chunks] as the new file [path], readable by its owner only, which then exists whole or not at all; returns their
 * SHA-256.
 *
 * Throws [StorageException] when [path] exists (unless [replace]: then it has the old content or the new one, whole) or any step
 * fails; what was written is then removed.
 */
internal fun atomicWrite(path: Path, chunks: Sequence<ByteBuffer>, replace: Boolean = false): String {
    if (!replace && Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
        throw StorageException("cannot write $path: it exists already")
    }
    val temporary = path.resolveSibling("${path.fileName}.part")
    val digest = MessageDigest.getInstance("SHA-256")
    var whole = false
    try {
        storage("write", path) {
            FileChannel.open(temporary, setOf(WRITE, CREATE, TRUNCATE_EXISTING), OWNER_ONLY).use { channel ->
                for (chunk in chunks) {
                    digest.update(chunk.duplicate())
                    val left = chunk.duplicate()
                    while (left.hasRemaining()) channel.write(left)
                }
                channel.force(true)
            }
            Files.move(temporary, path, StandardCopyOption.ATOMIC_MOVE)
            syncFolder(path.parent)
        }
        whole = true
    } finally {
        if (!whole) {
            removeQuietly(temporary)
            if (!replace) removeQuietly(path)
        }
    }
    return digest.digest().hex()
}

private fun removeQuietly(path: Path) {
    try {
        Files.deleteIfExists(path)
    } catch (_: IOException) {
        // What broke before matters more; who gets the lock next removes what is left.
    }
}

/**
 * Overwrite a file with zeros, flush it and remove it; one that is not there is fine. Spare blocks of flash storage may keep the
 * old content. A link is removed, not what it leads to. Throws [StorageException] when a step fails; done again, it goes on.
 */
internal fun erase(path: Path): Unit = storage("erase", path) {
    if (Files.isSymbolicLink(path)) {
        Files.delete(path)
    } else {
        try {
            FileChannel.open(path, WRITE, LinkOption.NOFOLLOW_LINKS).use(::overwriteAll)
            Files.deleteIfExists(path)
        } catch (_: NoSuchFileException) {
            return@storage
        }
    }
    syncFolder(path.parent)
}

/** Overwrite a file with zeros, flush it and cut it to nothing. Throws [StorageException]. */
internal fun overwrite(path: Path): Unit = storage("erase", path) {
    FileChannel.open(path, WRITE, LinkOption.NOFOLLOW_LINKS).use { channel ->
        overwriteAll(channel)
        channel.truncate(0)
        channel.force(true)
    }
}

private fun overwriteAll(channel: FileChannel) {
    val zeros = ByteBuffer.allocate(minOf(channel.size(), CHUNK.toLong()).toInt())
    var at = 0L
    while (at < channel.size()) {
        at += channel.write(zeros.between(0, minOf(zeros.capacity().toLong(), channel.size() - at).toInt()), at)
    }
    channel.force(true)
}

/**
 * Append a [line] (or some, joined) and flush it; what fails half way is cut off again. Throws [StorageException]. A line that a
 * power cut left unfinished stays one of its own.
 */
internal fun appendLine(path: Path, line: String): Unit = storage("append to", path) {
    val before = if (Files.exists(path)) Files.size(path) else 0
    val unfinished = before > 0 && FileChannel.open(path, READ).use { channel ->
        val last = ByteBuffer.allocate(1)
        channel.read(last, before - 1)
        last[0] != '\n'.code.toByte()
    }
    FileChannel.open(path, setOf(WRITE, CREATE, APPEND), OWNER_ONLY).use { channel ->
        try {
            val left = ByteBuffer.wrap(((if (unfinished) "\n" else "") + line + "\n").encodeToByteArray())
            while (left.hasRemaining()) channel.write(left)
            channel.force(true)
        } catch (error: IOException) {
            channel.truncate(before)
            throw error
        }
    }
}

/** [work] on a file, its IOException as a [StorageException] that names the file and what could not be done. */
internal inline fun <T> storage(what: String, path: Path, work: () -> T): T = try {
    work()
} catch (error: IOException) {
    throw storageError(what, path, error)
} catch (error: UncheckedIOException) { // of a walk, and the next of the names in a folder
    throw storageError(what, path, error.cause!!)
} catch (error: DirectoryIteratorException) {
    throw storageError(what, path, error.cause!!)
}

internal fun storageError(what: String, path: Path, error: IOException): StorageException {
    val reason = when (error) {
        is NoSuchFileException -> "there is no such file"
        is java.nio.file.AccessDeniedException -> "permission denied"
        is java.nio.file.FileSystemException -> error.reason ?: error.javaClass.simpleName
        else -> error.message ?: error.javaClass.simpleName
    }
    val message = "cannot $what $path: $reason; nothing was changed".takeIf { what == "write" } ?: "cannot $what $path: $reason"
    // The JVM and Android tell a full disk by the system's own words only.
    val full = listOf("No space left", "Disk quota exceeded", "ENOSPC").any { it in reason }
    return if (full) NoSpaceException(message, error) else StorageException(message, error)
}
