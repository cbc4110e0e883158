package io.cluemobile.android

import android.content.res.AssetManager
import io.cluemobile.BundleException
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.ERASED
import io.cluemobile.files.atomicWrite
import io.cluemobile.files.erase
import io.cluemobile.files.storage
import io.cluemobile.files.syncFolder
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.LinkOption.NOFOLLOW_LINKS
import java.nio.file.Path
import java.nio.file.StandardCopyOption.ATOMIC_MOVE

private const val HASH_DIGITS = 64
private const val NAME_DIGITS = 16
private const val CHUNK = 1 shl 16
private val COPY_ENDS = Regex("-[0-9a-f]{$NAME_DIGITS}\\.clue(\\.part)?")

/**
 * Opens the bundle that lies in the app's assets as the folder [name], such as `digits.clue`.
 *
 * Assets cannot be erased, so on first use the bundle is copied to the private folder [into] (`Context.getNoBackupFilesDir()` keeps it out
 * of backups), whole or not at all, and opened there; copies that earlier versions of the app made are erased, and a damaged one is
 * made anew. A sealing erases the copy's weights, but not the assets', and says so: deliver weights outside of the app where that
 * matters (docs/android.md).
 *
 * Throws [BundleException] where the assets are missing or damaged, StorageException (NoSpaceException) where they cannot be copied.
 */
public fun ClueBundle.Companion.open(
    assets: AssetManager,
    name: String,
    into: Path,
    verify: Boolean = true,
    trusted: List<Path> = emptyList(),
): ClueBundle {
    val hash = asset(assets, "$name/manifest.sha256").use { String(it.readBytes(), Charsets.US_ASCII).take(HASH_DIGITS) }
    if (hash.length != HASH_DIGITS || hash.any { it !in "0123456789abcdef" }) {
        throw BundleException("the app's assets/$name/manifest.sha256 is damaged: build the app again")
    }
    val stem = name.removeSuffix(".clue").substringAfterLast('/')
    val folder = into.resolve("$stem-${hash.take(NAME_DIGITS)}.clue")
    if (!Files.isDirectory(folder)) copyWhole(assets, name, folder)
    storage("clear", into) { eraseOthers(into, stem, folder) }
    val bundle = try {
        open(folder, verify, trusted)
    } catch (error: BundleException) {
        // Where sealing has erased the weights a new copy would bring them back.
        if (storage("read", folder) { wasErased(folder) }) throw error
        remove(folder)
        copyWhole(assets, name, folder)
        open(folder, verify, trusted)
    }
    return bundle.also { it.copyOf = "assets/$name" }
}

/** Whether an erased file's mark is in a copy. */
private fun wasErased(folder: Path): Boolean = Files.walk(folder).use { paths -> paths.anyMatch { it.toString().endsWith(ERASED) } }

private fun copyWhole(assets: AssetManager, name: String, folder: Path) {
    val part = folder.resolveSibling("${folder.fileName}.part")
    storage("make", folder.parent) { Files.createDirectories(folder.parent) }
    remove(part)
    copy(assets, name, part)
    storage("write", folder) {
        Files.move(part, folder, ATOMIC_MOVE)
        syncFolder(folder.parent)
    }
}

private fun copy(assets: AssetManager, from: String, to: Path) {
    storage("make", to) { Files.createDirectory(to) }
    for (entry in names(assets, from)) {
        val source = "$from/$entry"
        val target = to.resolve(entry)
        if (names(assets, source).isEmpty()) {
            asset(assets, source).use { stream -> atomicWrite(target, chunks(stream, source)) }
        } else {
            copy(assets, source, target)
        }
    }
    storage("flush", to) { syncFolder(to) }
}

private fun chunks(stream: InputStream, path: String): Sequence<ByteBuffer> {
    val chunk = ByteArray(CHUNK)
    return generateSequence { reading(path) { stream.read(chunk) }.takeIf { it >= 0 }?.let { ByteBuffer.wrap(chunk, 0, it) } }
}

private fun names(assets: AssetManager, folder: String): List<String> = reading(folder) { assets.list(folder).orEmpty().toList() }

private fun asset(assets: AssetManager, path: String): InputStream = reading(path) { assets.open(path) }

private fun <T> reading(path: String, work: () -> T): T = try {
    work()
} catch (error: FileNotFoundException) {
    throw BundleException("the app has no assets/$path: put the exported bundle's folder into the app's assets", error)
} catch (error: IOException) {
    throw BundleException("cannot read the app's assets/$path (${error.message}): install the app again", error)
}

/** Erases the copies of other versions of the bundle; the store has weights of its own. */
private fun eraseOthers(into: Path, stem: String, keep: Path) {
    val copies = Files.newDirectoryStream(into) { path ->
        val name = path.fileName.toString()
        val isCopy = name.startsWith(stem) && COPY_ENDS.matches(name.removePrefix(stem))
        path != keep && isCopy && Files.isDirectory(path, NOFOLLOW_LINKS)
    }
    copies.use { it.forEach(::remove) }
}

private fun remove(folder: Path) {
    if (!Files.isDirectory(folder, NOFOLLOW_LINKS)) return
    storage("erase", folder) {
        for (path in Files.newDirectoryStream(folder).use { it.toList() }) {
            if (Files.isDirectory(path, NOFOLLOW_LINKS)) remove(path) else erase(path)
        }
        Files.delete(folder)
    }
}
