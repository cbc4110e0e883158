package io.cluemobile.jvm

import io.cluemobile.SqlDatabase
import io.cluemobile.SqlException
import io.cluemobile.SqlRow
import java.io.IOException
import java.nio.file.FileAlreadyExistsException
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.attribute.PosixFilePermissions
import java.sql.Connection
import java.sql.DriverManager
import java.sql.PreparedStatement
import java.sql.ResultSet
import java.sql.SQLException

/** SQLite through JDBC. */
internal class JdbcDatabase private constructor(private val connection: Connection) : SqlDatabase {
    override val isOpen: Boolean get() = !connection.isClosed

    override fun execute(statement: String, vararg values: Any?): Int = prepared(statement, values) { it.executeUpdate() }

    override fun insert(statement: String, vararg values: Any?): Long = errors {
        prepared(statement, values) { it.executeUpdate() }
        connection.createStatement().use { last ->
            last.executeQuery("SELECT last_insert_rowid()").use { it.getLong(1) }
        }
    }

    override fun query(statement: String, vararg values: Any?, each: (SqlRow) -> Unit) {
        prepared(statement, values) { prepared ->
            // A PRAGMA that sets something may give no rows at all.
            if (!prepared.execute()) return@prepared
            prepared.resultSet.use { rows ->
                val row = JdbcRow(rows)
                while (rows.next()) each(row)
            }
        }
    }

    private fun <T> prepared(statement: String, values: Array<out Any?>, work: (PreparedStatement) -> T): T = errors {
        connection.prepareStatement(statement).use { prepared ->
            values.forEachIndexed { i, value -> prepared.setObject(i + 1, value) }
            work(prepared)
        }
    }

    private fun <T> errors(work: () -> T): T = try {
        work()
    } catch (error: SQLException) {
        throw SqlException(error.message.orEmpty(), error)
    }

    override fun close(): Unit = errors { connection.close() }

    private class JdbcRow(private val rows: ResultSet) : SqlRow {
        override fun long(column: Int): Long? = rows.getLong(column + 1).takeUnless { rows.wasNull() }

        override fun text(column: Int): String? = rows.getString(column + 1)

        override fun blob(column: Int): ByteArray? = rows.getBytes(column + 1)
    }

    companion object {
        private val OWNER_ONLY = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"))

        /** Opens [file], which is made when it is not there. Throws [SqlException]. */
        fun open(file: Path): JdbcDatabase {
            try {
                // SQLite gives -wal and -shm the mode of the database.
                Files.createFile(file, OWNER_ONLY)
            } catch (_: FileAlreadyExistsException) {
                // It was made before.
            } catch (error: IOException) {
                throw SqlException("cannot make $file: ${error.message}", error)
            }
            try {
                return JdbcDatabase(DriverManager.getConnection("jdbc:sqlite:$file"))
            } catch (error: SQLException) {
                throw SqlException(error.message.orEmpty(), error)
            }
        }
    }
}
