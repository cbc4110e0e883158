package io.cluemobile.files

import io.cluemobile.NoSpaceException
import io.cluemobile.StorageException
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path
import kotlin.io.path.createDirectory
import kotlin.io.path.createSymbolicLinkPointingTo
import kotlin.io.path.exists
import kotlin.io.path.listDirectoryEntries
import kotlin.io.path.readBytes
import kotlin.io.path.readText
import kotlin.io.path.writeText

class FilesTest {
    @TempDir
    lateinit var folder: Path

    private fun chunks(vararg texts: String): Sequence<ByteBuffer> = texts.asSequence().map { ByteBuffer.wrap(it.encodeToByteArray()) }

    @Test
    fun `a file is written whole, for its owner, and its hash is told`() {
        val path = folder.resolve("a")
        val digest = atomicWrite(path, chunks("one", "", "two"))
        assertEquals("onetwo", path.readText())
        assertEquals(sha256File(path), digest)
        assertEquals("rw-------", java.nio.file.attribute.PosixFilePermissions.toString(Files.getPosixFilePermissions(path)))
        assertThrows(StorageException::class.java) { atomicWrite(path, chunks("other")) }
        assertEquals("onetwo", path.readText())
        atomicWrite(path, chunks("other"), replace = true)
        assertEquals("other", path.readText())
    }

    @Test
    fun `what breaks while a file is written leaves the old one`() {
        val path = folder.resolve("a")
        atomicWrite(path, chunks("old"))
        val broken = sequence {
            yield(ByteBuffer.wrap(byteArrayOf(1)))
            throw IllegalStateException("it broke")
        }
        assertThrows(IllegalStateException::class.java) { atomicWrite(path, broken, replace = true) }
        assertEquals("old", path.readText())
        assertEquals(listOf(path), folder.listDirectoryEntries())
    }

    @Test
    fun `a full disk is an error of its own and changes nothing`() {
        val full = Path.of("/dev/full")
        assumeTrue(full.exists(), "this system has no /dev/full")
        val path = folder.resolve("a")
        atomicWrite(path, chunks("old"))
        folder.resolve("a.part").createSymbolicLinkPointingTo(full)
        val error = assertThrows(NoSpaceException::class.java) { atomicWrite(path, chunks("new"), replace = true) }
        assertTrue("No space left" in error.message.orEmpty(), error.message)
        assertEquals("old", path.readText())
        assertFalse(folder.resolve("a.part").exists())
    }

    @Test
    fun `a folder that went away is told`() {
        assertThrows(StorageException::class.java) { atomicWrite(folder.resolve("gone/a"), chunks("x")) }
        assertThrows(StorageException::class.java) { sha256File(folder.resolve("gone")) }
        assertThrows(StorageException::class.java) { readSmall(folder, 10) }
    }

    @Test
    fun `a file that is too long is not read`() {
        val path = folder.resolve("a").apply { writeText("12345") }
        assertArrayEquals("12345".encodeToByteArray(), readSmall(path, 5))
        assertThrows(StorageException::class.java) { readSmall(path, 4) }
    }

    @Test
    fun `an erased file is gone, and a link does not lead it astray`() {
        val path = folder.resolve("a").apply { writeText("secret") }
        val hard = Files.createLink(folder.resolve("b"), path)
        erase(path)
        assertFalse(path.exists())
        assertArrayEquals(ByteArray(6), hard.readBytes())
        erase(path)
        val kept = folder.resolve("kept").apply { writeText("kept") }
        val link = folder.resolve("link").createSymbolicLinkPointingTo(kept)
        erase(link)
        assertEquals("kept", kept.readText())
        overwrite(kept)
        assertEquals("", kept.readText())
        assertThrows(StorageException::class.java) { overwrite(folder.resolve("gone")) }
    }

    @Test
    fun `lines are appended, also after one that a power cut left unfinished`() {
        val path = folder.resolve("log")
        appendLine(path, "one")
        appendLine(path, "two\nthree")
        assertEquals("one\ntwo\nthree\n", path.readText())
        path.writeText("one\nunfin")
        appendLine(path, "two")
        assertEquals("one\nunfin\ntwo\n", path.readText())
        folder.resolve("d").createDirectory()
        assertThrows(StorageException::class.java) { appendLine(folder.resolve("d"), "x") }
    }
}
