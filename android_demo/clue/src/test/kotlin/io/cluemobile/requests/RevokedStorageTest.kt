package io.cluemobile.requests

import io.cluemobile.Classifier
import io.cluemobile.ClueException
import io.cluemobile.ImageException
import io.cluemobile.Options
import io.cluemobile.Platform
import io.cluemobile.Progress
import io.cluemobile.SqlDatabase
import io.cluemobile.SqlException
import io.cluemobile.SqlRow
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.Toy
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.jvm.JvmPlatform
import io.cluemobile.request.Control
import io.cluemobile.startChild
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.attribute.PosixFilePermissions
import kotlin.io.path.isDirectory
import kotlin.io.path.moveTo
import kotlin.system.exitProcess

private const val OPERATIONS = 40L

/** The root user may read and write everything, until this is taken from it. */
private const val AS_ANY_USER = "if [ \"\$(id -u)\" = 0 ]; then set -- setpriv --bounding-set=-dac_override,-dac_read_search \"\$@\"; fi; "

/** A folder that is taken away while it is in use: that is told, and once it is back the same request goes on. */
class RevokedStorageTest {
    @TempDir
    lateinit var folder: Path

    @Test
    fun `a store that is moved away`() = Revoked.MOVED.duringRequest(folder) { it.path }

    @Test
    fun `a bundle that is moved away`() = Revoked.MOVED.beforeRequest(folder)

    @Test
    fun `folders without permission`() {
        for (revoked in listOf(Revoked.UNREADABLE, Revoked.READ_ONLY)) {
            val place = Files.createDirectory(folder.resolve(revoked.name))
            val child = startChild(RevokedChild::class.java, revoked.name, place.toString(), before = AS_ANY_USER)
            val said = child.inputStream.bufferedReader().readText()
            val code = child.waitFor()
            assumeTrue(code != NOT_POSSIBLE, "the root user's rights cannot be taken from it here: $said")
            assertEquals(0, code, said)
        }
    }

    @Test
    fun `an image of another app that may not, or cannot, be read any longer`() {
        val revoked = listOf<Pair<() -> InputStream?, String>>(
            { throw SecurityException("Permission Denial: reading a provider") } to "may not read",
            { throw FileNotFoundException("open failed") } to "is not there any longer",
            { Files.newInputStream(folder.resolve("none")) } to "is not there any longer",
            { null } to "is not there any longer",
            { throw IllegalStateException("its database is closed") } to "its database is closed",
            { BrokenOff() } to "the connection was lost",
        )
        Toy(folder).use { toy ->
            for ((open, words) in revoked) {
                val error = assertThrows(ImageException::class.java) { toy.store.read("holiday.jpg", open) }
                assertTrue("holiday.jpg" in error.message!! && words in error.message!!, error.message)
            }
            assertEquals(emptyMap<String, Int>(), toy.store.counts())
        }
    }

    @Test
    fun `a disk that fails below the database`() {
        val platform = FailingPlatform()
        Toy(folder, platform).use { toy ->
            val (wanted, id) = toy.calmThenSubmit()
            val error = assertThrows(StorageException::class.java) {
                toy.store.runWith(id, OPERATIONS, toy.engine) { platform.fails = true }
            }
            assertTrue("disk I/O error" in error.message.orEmpty(), error.message)
            assertThrows(StorageException::class.java) { toy.store.requests() }
            platform.fails = false
            toy.goesOn(id, wanted, reason = "interrupted")
        }
    }
}

/** A picture that breaks off while it is read. */
private class BrokenOff : InputStream() {
    override fun read(): Int = throw IOException("the connection was lost")
}

/** SQLite whose statements fail for a while, as they do on a card that was pulled out. */
private class FailingPlatform : Platform by JvmPlatform() {
    var fails = false

    override fun openDatabase(file: Path): SqlDatabase = Failing(JvmPlatform().openDatabase(file))

    private inner class Failing(private val inner: SqlDatabase) : SqlDatabase by inner {
        override fun execute(statement: String, vararg values: Any?): Int = working { inner.execute(statement, *values) }

        override fun insert(statement: String, vararg values: Any?): Long = working { inner.insert(statement, *values) }

        override fun query(statement: String, vararg values: Any?, each: (SqlRow) -> Unit) =
            working { inner.query(statement, *values, each = each) }

        private fun <T> working(work: () -> T): T = if (fails) throw SqlException("disk I/O error") else work()
    }
}

/** Ways to lose a folder, and to have it back. */
internal enum class Revoked {
    MOVED {
        override fun take(folder: Path) {
            folder.moveTo(elsewhere(folder))
        }

        override fun giveBack(folder: Path) {
            elsewhere(folder).moveTo(folder)
        }

        private fun elsewhere(folder: Path) = folder.resolveSibling("${folder.fileName}-elsewhere")
    },
    UNREADABLE {
        override fun take(folder: Path) = mode(folder, "---------")

        override fun giveBack(folder: Path) = mode(folder, "rwx------")
    },
    READ_ONLY {
        override fun take(folder: Path) = foldersIn(folder).forEach { mode(it, "r-x------") }

        override fun giveBack(folder: Path) = foldersIn(folder).forEach { mode(it, "rwx------") }

        private fun foldersIn(folder: Path) = Files.walk(folder).use { paths -> paths.filter { it.isDirectory() }.toList() }
    }, ;

    abstract fun take(folder: Path)

    abstract fun giveBack(folder: Path)

    /** The folder is lost while a request runs that has a checkpoint. */
    fun duringRequest(place: Path, lost: (Toy) -> Path): Unit = Toy(place).use { toy ->
        val (wanted, id) = toy.calmThenSubmit()
        val error = assertThrows(StorageException::class.java) { toy.store.runWith(id, OPERATIONS, toy.engine) { take(lost(toy)) } }
        assertTrue(toy.path.toString() in error.message.orEmpty(), error.message)
        val unable = mapOf<String, () -> Any>(
            "run" to { toy.run(id) }, "rollback" to { toy.unlearner.rollback(1) }, "add" to { toy.add("dog", 1) },
            "seal" to { toy.unlearner.seal(1) },
        )
        for ((what, work) in unable) {
            if (this == READ_ONLY && what != "add") continue // what is there can be read and locked
            assertThrows(StorageException::class.java, { work() }, what)
        }
        giveBack(lost(toy))
        assertEquals(mapOf("cat" to 19), toy.store.counts())
        toy.goesOn(id, wanted, reason = "interrupted: ")
    }

    /** The bundle is lost before a request needs its programs. */
    fun beforeRequest(place: Path): Unit = Toy(place).use { toy ->
        val (wanted, id) = toy.calmThenSubmit()
        take(toy.root)
        val error = assertThrows(StorageException::class.java) { toy.run(id) }
        assertTrue(toy.root.toString() in error.message.orEmpty(), error.message)
        Classifier(toy.store, toy.engine).use { classifier ->
            assertThrows(StorageException::class.java) { classifier.predict(toy.images.of("dog").take(1)) }
            assertThrows(ClueException::class.java) { ClueBundle.open(toy.root) }
            giveBack(toy.root)
            assertEquals(1, classifier.predict(toy.images.of("dog").take(1)).size)
        }
        toy.goesOn(id, wanted, reason = "interrupted: ", first = 1)
    }
}

private fun mode(path: Path, mode: String) {
    Files.setPosixFilePermissions(path, PosixFilePermissions.fromString(mode))
}

/** What a request that nothing disturbs ends with, and the id of the same request, queued; the old weights serve. */
private fun Toy.calmThenSubmit(): Pair<String, Long> {
    add()
    val options = Options(accuracyAtMost = 100.0, checkpointSteps = 3)
    run(unlearner.submit(longRequest(4, options)))
    val wanted = store.serving().sha256
    unlearner.rollback(1)
    return wanted to unlearner.submit(longRequest(4, options))
}

/** The request is the next one, goes on from its checkpoint (its [first] operation says so), and ends with the same weights. */
private fun Toy.goesOn(id: Long, wanted: String, reason: String, first: Long = OPERATIONS - 10) {
    assertEquals(id, unlearner.next())
    assertEquals(Status.PAUSED, store.request(id).status)
    assertTrue(store.request(id).reason.orEmpty().startsWith(reason), store.request(id).reason)
    assertEquals(1, store.serving().id)
    reopen()
    var begun = 0L
    val result = run(id, Control(platform.device, { if (it is Progress.Step && begun == 0L) begun = it.done }))
    assertEquals(Status.DONE, result.status, result.reason)
    assertTrue(begun >= first, "it went on with operation $begun")
    assertEquals(wanted, store.serving().sha256)
}

private const val NOT_POSSIBLE = 75

/** Loses folders to their permissions, as a user who is not root. */
internal object RevokedChild {
    @JvmStatic
    fun main(arguments: Array<String>) {
        val revoked = Revoked.valueOf(arguments[0])
        val place = Path.of(arguments[1])
        val closed = Files.createDirectory(place.resolve("closed"))
        mode(closed, "---------")
        if (runCatching { Files.createFile(closed.resolve("file")) }.isSuccess) exitProcess(NOT_POSSIBLE)
        revoked.duringRequest(Files.createDirectory(place.resolve("store-lost"))) { it.path }
        if (revoked == Revoked.UNREADABLE) revoked.beforeRequest(Files.createDirectory(place.resolve("bundle-lost")))
    }
}
