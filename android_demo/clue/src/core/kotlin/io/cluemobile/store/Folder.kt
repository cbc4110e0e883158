package io.cluemobile.store

import io.cluemobile.StorageException
import io.cluemobile.files.storage
import java.nio.file.Files
import java.nio.file.LinkOption.NOFOLLOW_LINKS
import java.nio.file.NoSuchFileException
import java.nio.file.Path
import java.nio.file.attribute.PosixFileAttributes
import java.nio.file.attribute.PosixFilePermission
import java.nio.file.attribute.PosixFilePermission.GROUP_WRITE
import java.nio.file.attribute.PosixFilePermission.OTHERS_WRITE
import java.nio.file.attribute.PosixFilePermission.OWNER_EXECUTE
import java.nio.file.attribute.PosixFilePermission.OWNER_READ
import java.nio.file.attribute.PosixFilePermission.OWNER_WRITE
import java.nio.file.attribute.PosixFilePermissions

private val FOLDERS = listOf("generations", "keys", "checkpoints", "receipts")
private val FOLDER_MODE = setOf(OWNER_READ, OWNER_WRITE, OWNER_EXECUTE)
private val FILE_MODE = setOf(OWNER_READ, OWNER_WRITE)

/** An id in the name of a file: six digits, more when it needs more. */
internal fun digits(id: Long): String = id.toString().padStart(6, '0')

/** What a folder holds, in no order. Throws [StorageException]. */
internal fun list(folder: Path): List<Path> = storage("list", folder) { Files.newDirectoryStream(folder).use { it.toList() } }

/**
 * Makes the folders of a store and sees to it that they are private: what others may only read is closed to them.
 *
 * Throws [StorageException] for a folder in the [bundle]'s, one with other files, a link or special file in it, something
 * that others may write to or that another user owns.
 */
internal fun prepareFolder(folder: Path, bundle: Path): Unit = storage("use the store", folder) {
    if (realPath(folder).startsWith(realPath(bundle))) {
        throw StorageException("the store $folder lies in the bundle, which is only read: choose another folder")
    }
    if (Files.isDirectory(folder)) {
        if (!Files.exists(folder.resolve("store.db")) && list(folder).any(::isOther)) {
            throw StorageException("$folder holds other files and is no store: choose an empty or a new folder")
        }
        checkPrivate(folder)
    }
    folder.toAbsolutePath().parent?.let(Files::createDirectories)
    for (own in listOf(folder) + FOLDERS.map(folder::resolve)) {
        if (!Files.isDirectory(own)) {
            Files.createDirectory(own, PosixFilePermissions.asFileAttribute(FOLDER_MODE))
        }
    }
}

/** The place that a path stands for, also where its last parts do not exist yet. */
private fun realPath(path: Path): Path {
    val absolute = path.toAbsolutePath().normalize()
    val parent = absolute.parent
    return when {
        Files.exists(absolute) || parent == null -> absolute.toRealPath()
        else -> realPath(parent).resolve(absolute.fileName)
    }
}

/** Whether a path in the folder is none of what a process leaves that died while it made a store. */
private fun isOther(path: Path): Boolean =
    path.fileName.toString() !in FOLDERS || !Files.isDirectory(path) || list(path).isNotEmpty()

private fun checkPrivate(folder: Path) {
    val owner = Files.readAttributes(folder, PosixFileAttributes::class.java).owner()
    check(folder, owner.name)
    for (path in list(folder)) {
        check(path, owner.name)
        if (Files.isDirectory(path, NOFOLLOW_LINKS)) list(path).forEach { check(it, owner.name) }
    }
}

private fun check(path: Path, owner: String) {
    val found = try {
        Files.readAttributes(path, PosixFileAttributes::class.java, NOFOLLOW_LINKS)
    } catch (_: NoSuchFileException) {
        return // another process has just finished with a temporary file
    }
    if (!found.isRegularFile && !found.isDirectory) {
        throw StorageException("$path in the store is a link or a special file: a store has none, remove it")
    }
    if (found.owner().name != owner) {
        throw StorageException("$path belongs to ${found.owner().name}, the store to $owner: choose another folder")
    }
    val mode: Set<PosixFilePermission> = found.permissions()
    if (GROUP_WRITE in mode || OTHERS_WRITE in mode) {
        throw StorageException("others may write to $path, so the store may have been changed: choose another folder")
    }
    val wanted = if (found.isDirectory) FOLDER_MODE else FILE_MODE
    if (!wanted.containsAll(mode)) Files.setPosixFilePermissions(path, wanted)
}
