package io.cluemobile.store

import io.cluemobile.StorageException
import io.cluemobile.files.atomicWrite
import io.cluemobile.files.erase
import io.cluemobile.files.readSmall
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path

private const val MOST_KEY_BYTES = 1 shl 10

/**
 * The keys that wrap those of the samples: rows of `keys`, and files of 32 bytes outside of the database, so that they
 * can be destroyed. To be called inside a transaction of [database].
 */
internal class Keys(private val database: Database) {
    val folder: Path = database.folder.resolve("keys")

    /** Where a key lies. */
    fun path(id: Long): Path = folder.resolve("${digits(id)}.key")

    /** A new key, of a request or of a class's intake; returns its id. */
    fun create(request: Long? = null, label: Int? = null): Long {
        val id = database.insert("INSERT INTO keys (request_id, label, created) VALUES (?, ?, ?)", request, label, now())
        // Left by a process that died before it committed the row: no sample was encrypted by it.
        erase(path(id))
        atomicWrite(path(id), sequenceOf(ByteBuffer.wrap(AesGcm.newKey())))
        return id
    }

    /** The key of new samples of a class; made when there is none. */
    fun intake(label: Int): Long =
        database.long("SELECT id FROM keys WHERE label = ? AND destroyed IS NULL", label) ?: create(label = label)

    /** A key's bytes. Throws [StorageException] when its file is gone or damaged. */
    fun read(id: Long): ByteArray {
        val content = readSmall(path(id), MOST_KEY_BYTES)
        if (content.size != AesGcm.KEY_BYTES) {
            throw StorageException("the key ${path(id)} has ${content.size} bytes instead of 32: it is damaged")
        }
        return content
    }

    /** Marks the keys that no sample has any longer; [destroyMarked] removes their files later. */
    fun giveUpUnused() {
        database.execute(
            "UPDATE keys SET destroyed = ?, label = NULL WHERE destroyed IS NULL " +
                "AND NOT EXISTS (SELECT 1 FROM samples WHERE key_id = keys.id)",
            now(),
        )
    }

    /**
     * Destroys every key file that belongs to no row, or to one that is marked as destroyed.
     *
     * It looks again in a transaction: another process writes the file of a new key before it commits the row.
     */
    fun destroyMarked() {
        if (withoutRow().isEmpty()) return
        database.transaction { withoutRow().forEach(::erase) }
    }

    private fun withoutRow(): List<Path> {
        val live = database.longs("SELECT id FROM keys WHERE destroyed IS NULL").map { path(it).fileName }.toSet()
        return list(folder).filter { it.fileName !in live && !Files.isDirectory(it) }
    }
}
