package io.cluemobile.android

import android.database.Cursor
import android.database.CursorWindow
import android.database.SQLException
import android.database.sqlite.SQLiteCursor
import android.database.sqlite.SQLiteDatabase
import android.database.sqlite.SQLiteProgram
import android.os.Build
import io.cluemobile.SqlDatabase
import io.cluemobile.SqlException
import io.cluemobile.SqlRow
import java.nio.file.Path

/**
 * The system's own SQLite behind the runtime's interface.
 *
 * A database that is found damaged is reported and left as it is (the platform's default is to delete it), and no table of
 * Android's is added to it. After a COMMIT that failed the connection is closed: the platform has then forgotten the transaction that
 * SQLite may still be in, and closing takes it back. The store must then be opened again.
 */
internal class AndroidDatabase private constructor(private val database: SQLiteDatabase) : SqlDatabase {
    override val isOpen: Boolean get() = database.isOpen

    override fun execute(statement: String, vararg values: Any?): Int =
        guarded(statement) {
            database.compileStatement(statement).use { compiled ->
                compiled.bindAll(values)
                compiled.executeUpdateDelete()
            }
        }

    override fun insert(statement: String, vararg values: Any?): Long =
        guarded(statement) {
            database.compileStatement(statement).use { compiled ->
                compiled.bindAll(values)
                compiled.executeInsert()
            }
        }

    override fun query(statement: String, vararg values: Any?, each: (SqlRow) -> Unit) {
        guarded(statement) {
            // rawQuery would bind everything as text; a cursor factory sees the query before it runs
            val factory =
                SQLiteDatabase.CursorFactory { _, driver, table, query ->
                    query.bindAll(values)
                    SQLiteCursor(driver, table, query).apply { widen() }
                }
            database.rawQueryWithFactory(factory, statement, null, "").use { cursor ->
                val row = CursorRow(cursor)
                while (cursor.moveToNext()) each(row)
            }
        }
    }

    override fun close() {
        database.close()
    }

    private fun <T> guarded(statement: String, work: () -> T): T =
        try {
            work()
        } catch (error: SQLException) {
            if (statement.startsWith("COMMIT", ignoreCase = true)) database.close()
            throw SqlException(error.message ?: "SQLite failed", error)
        } catch (error: IllegalStateException) { // a closed connection, or a row that is too large for its window
            throw SqlException(error.message ?: "the connection is closed", error)
        }

    /** The default window has 2 MB, and a row must fit: the pixels of a large model's sample would not. */
    private fun SQLiteCursor.widen() {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) window = CursorWindow("clue", WINDOW_BYTES)
    }

    private class CursorRow(private val cursor: Cursor) : SqlRow {
        override fun long(column: Int): Long? = if (cursor.isNull(column)) null else cursor.getLong(column)

        override fun text(column: Int): String? = if (cursor.isNull(column)) null else cursor.getString(column)

        override fun blob(column: Int): ByteArray? = if (cursor.isNull(column)) null else cursor.getBlob(column)
    }

    companion object {
        private const val WINDOW_BYTES = 16L shl 20

        fun open(file: Path): AndroidDatabase {
            val flags = SQLiteDatabase.CREATE_IF_NECESSARY or SQLiteDatabase.NO_LOCALIZED_COLLATORS
            try {
                return AndroidDatabase(SQLiteDatabase.openDatabase(file.toString(), null, flags) { })
            } catch (error: SQLException) {
                throw SqlException(error.message ?: "cannot open $file", error)
            }
        }

        private fun SQLiteProgram.bindAll(values: Array<out Any?>) {
            values.forEachIndexed { index, value ->
                when (value) {
                    null -> bindNull(index + 1)
                    is Int -> bindLong(index + 1, value.toLong())
                    is Long -> bindLong(index + 1, value)
                    is String -> bindString(index + 1, value)
                    is ByteArray -> bindBlob(index + 1, value)
                    else -> throw IllegalArgumentException("a value of ${value.javaClass.name} cannot be stored")
                }
            }
        }
    }
}
