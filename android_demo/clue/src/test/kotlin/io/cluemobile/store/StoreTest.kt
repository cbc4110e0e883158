package io.cluemobile.store

import io.cluemobile.BusyException
import io.cluemobile.ClueException
import io.cluemobile.ForgetStore
import io.cluemobile.Pixels
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.ToyTest
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.files.sha256File
import io.cluemobile.jvm.JdbcDatabase
import io.cluemobile.jvm.JvmPlatform
import io.cluemobile.startChild
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.attribute.PosixFilePermissions
import java.util.concurrent.CountDownLatch
import kotlin.concurrent.thread

/** The store's folder, its lock, and what is found in it when it is opened. */
internal class StoreTest : ToyTest() {
    private fun mode(path: Path, mode: String) = Files.setPosixFilePermissions(path, PosixFilePermissions.fromString(mode))

    private fun modeOf(path: Path) = PosixFilePermissions.toString(Files.getPosixFilePermissions(path))

    private fun refused(vararg words: String) {
        val error = assertThrows(ClueException::class.java) { toy.reopen() }
        for (word in words) assertTrue(word in error.message!!, error.message)
    }

    @Test
    fun `everything is its owner's alone`() {
        toy.forget()
        for (path in Files.walk(toy.path).use { it.toList() }) {
            assertEquals(if (Files.isDirectory(path)) "rwx------" else "rw-------", modeOf(path), path.toString())
        }
    }

    @Test
    fun `a store that was closed says so`() {
        assertTrue(toy.store.isOpen)
        toy.store.close()
        assertFalse(toy.store.isOpen)
        toy.reopen()
        assertTrue(toy.store.isOpen)
    }

    @Test
    fun `what others may read is closed, what they may write is refused`() {
        val key = toy.path.resolve("generations/000001.safetensors")
        mode(key, "rw-r--r--")
        toy.reopen()
        assertEquals("rw-------", modeOf(key))
        mode(key, "rw-rw----")
        refused("000001.safetensors", "write")
        mode(key, "rw-------")
        Files.createSymbolicLink(toy.path.resolve("keys/link"), key)
        refused("keys/link")
    }

    @Test
    fun `a folder with other files is no store, nor is one in the bundle`() {
        val other = Files.createDirectory(folder.resolve("other"))
        Files.createFile(other.resolve("letter.txt"))
        for (place in listOf(other, toy.root.resolve("store"))) {
            assertThrows(StorageException::class.java) { ForgetStore.open(place, ClueBundle.open(toy.root), JvmPlatform()) }
        }
        assertEquals(1, list(other).size)
    }

    @Test
    fun `a store of other classes, of a newer runtime, or with a trigger is refused`() {
        toy.store.close()
        val database = JdbcDatabase.open(toy.path.resolve("store.db"))
        database.execute("UPDATE bundle SET value = '[\"owl\"]' WHERE key = 'classes'")
        refused("another bundle", "classes")
        // As another runtime writes the same list.
        database.execute("UPDATE bundle SET value = '[\"cat\", \"dog\", \"10\"]' WHERE key = 'classes'")
        toy.reopen()
        database.execute("PRAGMA user_version = 3")
        refused("newer", "3")
        database.execute("PRAGMA user_version = 2")
        database.execute("CREATE TRIGGER t AFTER INSERT ON samples BEGIN DELETE FROM samples; END")
        refused("trigger t")
        database.close()
    }

    @Test
    fun `a file that is no database is refused and stays`() {
        toy.store.close()
        for (name in listOf("store.db-wal", "store.db-shm")) Files.deleteIfExists(toy.path.resolve(name))
        Files.write(toy.path.resolve("store.db"), "no database, but a long enough letter to somebody".repeat(20).toByteArray())
        val before = sha256File(toy.path.resolve("store.db"))
        refused("store")
        assertEquals(before, sha256File(toy.path.resolve("store.db")))
    }

    @Test
    fun `one thread has the lock, and may take it again`() {
        val store = toy.store.store
        val (held, done) = CountDownLatch(1) to CountDownLatch(1)
        val holder = thread {
            store.exclusive {
                store.exclusive { held.countDown() }
                done.await()
            }
        }
        held.await()
        assertThrows(BusyException::class.java) { store.exclusive(30) { } }
        // Another object of the same folder may be opened, and does not get the lock either.
        ForgetStore.open(toy.path, ClueBundle.open(toy.root), JvmPlatform()).use { second ->
            assertThrows(BusyException::class.java) { second.store.exclusive(30) { } }
        }
        assertThrows(BusyException::class.java) { store.exclusive(30) { } }
        done.countDown()
        holder.join()
        store.exclusive { }
    }

    @Test
    fun `the lock of another process is seen, and freed when it is killed`() {
        val child = startChild(LockHolder::class.java, toy.path.toString())
        assertEquals("held", child.inputStream.bufferedReader().readLine())
        assertThrows(BusyException::class.java) { toy.store.store.exclusive(30) { } }
        child.destroyForcibly().waitFor()
        toy.store.store.exclusive { }
    }

    @Test
    fun `what no row names is removed by who gets the lock`() {
        val left = listOf("generations/000007.safetensors", "checkpoints/000003.safetensors", "keys/000009.key", "idle.json.part")
        for (name in left) Files.write(toy.path.resolve(name), byteArrayOf(1))
        toy.store.store.exclusive { }
        for (name in left) assertFalse(Files.exists(toy.path.resolve(name)), name)
    }

    @Test
    fun `a transaction that fails changes nothing`() {
        val database = toy.store.store.database
        assertThrows(IllegalStateException::class.java) {
            database.transaction {
                database.execute("UPDATE bundle SET value = 'x'")
                database.transaction { error("broken") }
            }
        }
        assertFalse(database.any("SELECT 1 FROM bundle WHERE value = 'x'"))
        database.transaction { database.execute("UPDATE bundle SET value = 'toy' WHERE key = 'name'") }
    }

    @Test
    fun `weights that were changed on the disk do not serve again`() {
        toy.forget()
        Files.write(toy.path.resolve("generations/000001.safetensors"), byteArrayOf(1))
        val error = assertThrows(StorageException::class.java) { toy.unlearner.rollback(1) }
        assertTrue("changed" in error.message!!)
        assertEquals(2, toy.store.serving().id)
    }

    @Test
    fun `a full disk leaves everything as it was`() {
        toy.add("cat", 2)
        toy.store.close()
        // No file of this process may grow beyond 2,200 blocks, about what SQLite's own library takes.
        val child = startChild(FullDisk::class.java, toy.root.toString(), toy.path.toString(), before = "ulimit -f 2200; ")
        val said = child.inputStream.bufferedReader().readText()
        assertEquals(0, child.waitFor(), said)
        toy.reopen()
        assertEquals(mapOf("cat" to 2), toy.store.counts())
        assertEquals(Status.DONE, toy.run(toy.submit()).status)
    }
}

/** Holds the lock of a store until it is killed. */
internal object LockHolder {
    @JvmStatic
    fun main(arguments: Array<String>) {
        StoreLock(Path.of(arguments[0])).hold(1_000, {}) {
            println("held")
            Thread.sleep(60_000)
        }
    }
}

/** Adds samples until the disk is full, and looks whether that is told as it is to be. */
internal object FullDisk {
    @JvmStatic
    fun main(arguments: Array<String>) {
        ForgetStore.open(Path.of(arguments[1]), ClueBundle.open(Path.of(arguments[0])), JvmPlatform()).use { store ->
            val size = 16
            val many = List(10_000) { i ->
                Pixels(4, 4, 1, ByteArray(size) { (i shr (it % 4 * 8)).toByte() })
            }
            try {
                store.add(many, "dog")
                error("10,000 samples fit")
            } catch (error: StorageException) {
                println(error.message)
            }
            check(store.counts() == mapOf("cat" to 2)) { "left: ${store.counts()}" }
        }
    }
}
