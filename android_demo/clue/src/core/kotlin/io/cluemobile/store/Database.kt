package io.cluemobile.store

import io.cluemobile.NoSpaceException
import io.cluemobile.Platform
import io.cluemobile.SqlDatabase
import io.cluemobile.SqlException
import io.cluemobile.SqlRow
import io.cluemobile.StorageException
import java.nio.file.Path
import java.time.Instant
import java.time.ZoneOffset
import java.time.format.DateTimeFormatter
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock

private val TIME = DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ssxxx")

/** The time as the store writes it: UTC, ISO 8601, seconds. */
internal fun now(): String = TIME.format(Instant.now().atOffset(ZoneOffset.UTC))

/** A list of marks for the values of an IN. */
internal fun marks(count: Int): String = List(count) { "?" }.joinToString()

/**
 * `store.db` in [folder], which exists: its connection, transactions and lock. May be used from several threads, one
 * statement or transaction at a time. Every method throws [StorageException].
 */
internal class Database(val folder: Path, platform: Platform) : AutoCloseable {
    private val guard = ReentrantLock()
    private val lock = StoreLock(folder)
    private var inTransaction = false
    private var unsettled = false
    private val connection: SqlDatabase = errors { platform.openDatabase(folder.resolve("store.db")) }

    init {
        try {
            prepare()
        } catch (error: Throwable) {
            connection.close()
            throw error
        }
    }

    private fun prepare() {
        pragma("busy_timeout = 10000")
        // A database that somebody else made may hold statements of its own: none of them is carried out.
        pragma("trusted_schema = OFF")
        pragma("cell_size_check = ON")
        val other = rows("SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')") {
            "${it.text(0)} ${it.text(1)}"
        }
        if (other.isNotEmpty()) {
            throw StorageException("the store $folder has the ${other[0]}, which no runtime makes: do not use it")
        }
        pragma("journal_mode = WAL")
        pragma("synchronous = FULL")
        pragma("foreign_keys = ON")
        // Deleted rows are overwritten with zeros.
        pragma("secure_delete = ON")
    }

    override fun close(): Unit = guard.withLock { connection.close() }

    val isOpen: Boolean get() = guard.withLock { connection.isOpen }

    /** Carries out a PRAGMA; returns the first number of each row that it answers, null where it is a text. */
    fun pragma(text: String): List<Long?> = rows("PRAGMA $text") { row -> runCatching { row.long(0) }.getOrNull() }

    /** Carries out one statement; returns how many rows it changed. */
    fun execute(statement: String, vararg values: Any?): Int =
        guard.withLock { errors { connection.execute(statement, *values) } }

    /** Inserts a row; returns its id. */
    fun insert(statement: String, vararg values: Any?): Long =
        guard.withLock { errors { connection.insert(statement, *values) } }

    /** Calls [each] with every row, one by one: a million of them need not fit the memory. */
    fun each(query: String, vararg values: Any?, each: (SqlRow) -> Unit): Unit =
        guard.withLock { errors { connection.query(query, *values, each = each) } }

    /** What [make] makes of all rows of a query. */
    fun <T> rows(query: String, vararg values: Any?, make: (SqlRow) -> T): List<T> {
        val found = ArrayList<T>()
        each(query, *values) { found += make(it) }
        return found
    }

    /** The whole number that a query gives in its first row; null when there is none, or it is NULL. */
    fun long(query: String, vararg values: Any?): Long? = rows(query, *values) { it.long(0) }.firstOrNull()

    /** The whole numbers of a query's only column. */
    fun longs(query: String, vararg values: Any?): List<Long> = rows(query, *values) { it.long(0)!! }

    /** Whether a query has a row. */
    fun any(query: String, vararg values: Any?): Boolean = rows(query, *values) { }.isNotEmpty()

    /** All or nothing; one inside another is part of the outer one. No other process writes meanwhile. */
    fun <T> transaction(work: () -> T): T = guard.withLock {
        if (inTransaction) return work()
        errors { connection.execute("BEGIN IMMEDIATE") }
        inTransaction = true
        var ended = false
        try {
            val result = work()
            val before = unsettled
            unsettled = true
            errors { connection.execute("COMMIT") }
            ended = true
            unsettled = before
            result
        } finally {
            inTransaction = false
            if (!ended) runCatching { connection.execute("ROLLBACK") }
        }
    }

    /**
     * After a commit that failed, makes sure that it did: its pages may lie whole in the log, and the next process to open
     * the database would find it done. Any write takes their place. To be called before a file is removed because no row
     * names it.
     */
    fun settle() {
        if (!unsettled) return
        transaction {
            val version = long("PRAGMA user_version")
            execute("PRAGMA user_version = $version")
        }
        unsettled = false
    }

    /** No page and no log keeps anything that was deleted. Throws also when another process reads the database. */
    fun vacuum() {
        checkpointLog()
        execute("VACUUM")
        checkpointLog()
    }

    private fun checkpointLog() {
        val busy = long("PRAGMA wal_checkpoint(TRUNCATE)")
        if (busy != null && busy != 0L) {
            throw StorageException("another process reads $folder: seal again when it has ended")
        }
    }

    /** Holds the store's lock while [work] runs, see [StoreLock.hold]. */
    fun <T> exclusive(waitMs: Long, gained: () -> Unit, work: () -> T): T = lock.hold(waitMs, gained, work)

    private fun <T> errors(work: () -> T): T = try {
        work()
    } catch (error: SqlException) {
        val text = "the store $folder failed: ${error.message}; nothing was changed"
        val full = "full" in error.message.orEmpty().lowercase()
        throw if (full) NoSpaceException(text, error) else StorageException(text, error)
    }
}
