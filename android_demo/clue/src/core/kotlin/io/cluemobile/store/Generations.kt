package io.cluemobile.store

import io.cluemobile.ClueException
import io.cluemobile.Generation
import io.cluemobile.SqlRow
import io.cluemobile.StorageException
import java.nio.file.Files
import java.nio.file.Path

private const val COLUMNS = "id, request_id, parent, file, sha256, created, erased, serving"

/** The serving generation and its ancestors. */
private const val CHAIN = "WITH RECURSIVE chain (id, request_id, parent) AS (" +
    "SELECT id, request_id, parent FROM generations WHERE serving = 1 " +
    "UNION ALL SELECT g.id, g.request_id, g.parent FROM generations AS g JOIN chain ON g.id = chain.parent) "
private const val EFFECTIVE = "id IN (SELECT request_id FROM chain WHERE request_id NOTNULL)"

/** The generations of weights: rows of `generations` and their files. */
internal class Generations(private val database: Database) {
    val folder: Path = database.folder.resolve("generations")

    /** Where the new generation [id] lies. */
    fun path(id: Long): Path = folder.resolve("${digits(id)}.safetensors")

    /** The id of the next generation; only who holds the lock makes one. */
    fun nextId(): Long = (database.long("SELECT seq FROM sqlite_sequence WHERE name = 'generations'") ?: 0) + 1

    /** The generation that a request made, or is to make. */
    fun ofRequest(request: Long): Long =
        database.long("SELECT id FROM generations WHERE request_id = ?", request) ?: nextId()

    /** Every generation, oldest first. */
    fun all(): List<Generation> = database.rows("SELECT $COLUMNS FROM generations ORDER BY id", make = ::generation)

    /** One generation. Throws [ClueException] when there is none of that id. */
    fun get(id: Long): Generation =
        database.rows("SELECT $COLUMNS FROM generations WHERE id = ?", id, make = ::generation).firstOrNull() ?: run {
            val kept = all().filter { it.erased == null }.joinToString { it.id.toString() }
            throw ClueException("there is no generation $id: choose one of $kept")
        }

    /** The generation that serves now. */
    fun serving(): Generation =
        database.rows("SELECT $COLUMNS FROM generations WHERE serving = 1", make = ::generation).firstOrNull()
            ?: throw StorageException("the store ${database.folder} has no weights: another process is still creating it")

    private fun generation(row: SqlRow): Generation {
        val id = row.long(0)!!
        val name = row.text(3)
        return Generation(
            id = id,
            request = row.long(1),
            // Of a name in the database only its last part counts: it cannot lead out of the folder.
            file = if (name == null) path(id) else folder.resolve(name.substringAfterLast('/')),
            sha256 = row.text(4)!!,
            created = row.text(5)!!,
            parent = row.long(2),
            erased = row.text(6),
            serving = row.long(7) == 1L,
        )
    }

    /** The new generation whose file was written to the place of the next id serves; returns its id. */
    fun insert(request: Long?, parent: Long?, sha256: String): Long = database.transaction {
        val id = nextId()
        database.execute("UPDATE generations SET serving = 0 WHERE serving = 1")
        database.execute(
            "INSERT INTO generations (id, request_id, parent, file, sha256, created, serving) VALUES (?, ?, ?, ?, ?, ?, 1)",
            id, request, parent, path(id).fileName.toString(), sha256, now(),
        )
        markRolledBack()
        id
    }

    /** Lets a kept generation serve; inside a transaction. */
    fun serve(id: Long) {
        database.execute("UPDATE generations SET serving = 0 WHERE serving = 1")
        database.execute("UPDATE generations SET serving = 1 WHERE id = ?", id)
        markRolledBack()
    }

    /** `rolled_back` of every done request says whether the serving weights lack its effect. */
    private fun markRolledBack() {
        database.execute("${CHAIN}UPDATE requests SET rolled_back = NULL WHERE rolled_back IS NOT NULL AND $EFFECTIVE")
        database.execute(
            "${CHAIN}UPDATE requests SET rolled_back = ? " +
                "WHERE status = 'done' AND rolled_back IS NULL AND NOT $EFFECTIVE",
            now(),
        )
    }

    /** The requests whose effect the serving weights have, oldest first. */
    fun effective(): List<Long> =
        database.longs("${CHAIN}SELECT request_id FROM chain WHERE request_id IS NOT NULL ORDER BY request_id")

    /** A generation and its descendants. */
    fun family(id: Long): Set<Long> {
        val family = mutableSetOf(id)
        // A generation is younger than its parent: one pass over the ids in their order finds all.
        val parents = database.rows("SELECT id, parent FROM generations WHERE parent NOTNULL ORDER BY id") {
            it.long(0)!! to it.long(1)!!
        }
        for ((child, parent) in parents) if (parent in family) family += child
        return family
    }

    /** Removes every file of the folder that no row names; only who holds the lock may. */
    fun removeUnnamed(erase: (Path) -> Unit) {
        val known = database.rows("SELECT file FROM generations WHERE file NOTNULL") { it.text(0)!! }.toSet()
        list(folder).filter { it.fileName.toString() !in known && !Files.isDirectory(it) }.forEach(erase)
    }
}
