package io.cluemobile

/**
 * All that the store needs of SQLite: a connection of its own, used by one thread at a time, without automatic
 * transactions of its own making. Values are null, Int, Long, String or ByteArray. Every method throws [SqlException].
 */
public interface SqlDatabase : AutoCloseable {
    /** False once it was closed, by [close] or because a COMMIT failed where nothing else takes back the transaction. */
    public val isOpen: Boolean

    /** Carries out one statement that gives no rows; returns how many rows it changed (0 where it changes none). */
    public fun execute(statement: String, vararg values: Any?): Int

    /** Carries out one INSERT; returns the row's id. */
    public fun insert(statement: String, vararg values: Any?): Long

    /** Calls [each] with every row of a query, or of a PRAGMA that answers, in order. */
    public fun query(statement: String, vararg values: Any?, each: (SqlRow) -> Unit)

    override fun close()
}

/** The current row of a query; columns count from 0. Not valid after the call that it was given to. */
public interface SqlRow {
    /** A whole number, null for NULL. */
    public fun long(column: Int): Long?

    /** A text, null for NULL. */
    public fun text(column: Int): String?

    /** A blob, null for NULL. */
    public fun blob(column: Int): ByteArray?
}

/** SQLite's own error. */
public class SqlException(message: String, cause: Throwable? = null) : Exception(message, cause)
