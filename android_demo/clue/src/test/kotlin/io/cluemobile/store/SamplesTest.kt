package io.cluemobile.store

import io.cluemobile.ClueException
import io.cluemobile.ForgetRequest
import io.cluemobile.ImageException
import io.cluemobile.Pixels
import io.cluemobile.StorageException
import io.cluemobile.ToyTest
import io.cluemobile.contains
import io.cluemobile.files.sha256
import io.cluemobile.filesIn
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.nio.file.Files
import javax.crypto.Cipher
import javax.crypto.spec.GCMParameterSpec
import javax.crypto.spec.SecretKeySpec

/** Samples are stored once, encrypted as docs/runtime-contract.md says, under keys that can be destroyed. */
internal class SamplesTest : ToyTest() {
    private val database get() = toy.store.store.database

    private fun ofRequest(id: Long) = toy.store.store.samples.ofRequest(id, 16)

    @Test
    fun `pixels and keys are encrypted as the contract says`() {
        toy.add("cat", 2)
        val image = toy.images.of("cat")[1].bytes
        val key = Files.readAllBytes(toy.path.resolve("keys/000001.key"))
        val (wrapped, content) = database.rows(
            "SELECT wrapped, content FROM samples JOIN pixels ON sample_id = id WHERE id = 2",
        ) { it.blob(0)!! to it.blob(1)!! }.single()
        fun decrypt(key: ByteArray, locked: ByteArray, about: String): ByteArray {
            val cipher = Cipher.getInstance("AES/GCM/NoPadding")
            cipher.init(Cipher.DECRYPT_MODE, SecretKeySpec(key, "AES"), GCMParameterSpec(128, locked.copyOf(12)))
            cipher.updateAAD(about.toByteArray())
            return cipher.doFinal(locked.copyOfRange(12, locked.size))
        }
        assertEquals(60, wrapped.size)
        val own = decrypt(key, wrapped, "clue-key-v1 ${sha256(image)} 0")
        assertArrayEquals(image, decrypt(own, content, "clue-sample-v1 ${sha256(image)} 0"))
        for (file in filesIn(toy.path)) assertFalse(Files.readAllBytes(file).contains(image), file.toString())
    }

    @Test
    fun `an image is stored once for a label`() {
        assertEquals(listOf(1L, 2L, 3L), toy.add("cat", 3))
        assertEquals(listOf(4L), toy.add("cat", 4))
        assertEquals(listOf(5L), toy.store.add(toy.images.of("cat").take(1), "1"))
        assertEquals(mapOf("cat" to 4, "dog" to 1), toy.store.counts())
        assertEquals(listOf(5L), toy.store.samples("dog").map { it.id })
        assertEquals(listOf<Long?>(null), toy.store.samples("dog").map { it.request })
    }

    @Test
    fun `what is no image of the model is refused, and nothing is stored`() {
        val right = toy.images.of("cat").take(1)
        for (wrong in listOf(Pixels(4, 3, 1, ByteArray(12)), Pixels(4, 4, 3, ByteArray(48)), Pixels(4, 4, 1, ByteArray(15)))) {
            assertThrows(ImageException::class.java) { toy.store.add(right + wrong, "cat") }
        }
        assertThrows(ClueException::class.java) { toy.store.add(right, "owl") }
        assertEquals(emptyMap<String, Int>(), toy.store.counts())
    }

    @Test
    fun `samples come back in the order of the request`() {
        toy.add("cat", 5)
        toy.add("dog", 3)
        val ids = listOf(7L, 2L, 8L, 1L)
        val request = toy.unlearner.submit(ForgetRequest.ofSamples(ids, 1))
        val (pixels, labels) = ofRequest(request)
        val wanted = listOf("dog" to 1, "cat" to 1, "dog" to 2, "cat" to 0).map { (name, i) -> toy.images.of(name)[i].bytes }
        assertArrayEquals(wanted.reduce(ByteArray::plus), pixels)
        assertEquals(listOf(1, 0, 1, 0), labels.toList())
    }

    @Test
    fun `a request takes a whole key over and other samples to a new one`() {
        toy.add("cat", 5)
        toy.add("dog", 3)
        toy.unlearner.submit(ForgetRequest.ofSamples(listOf(1, 2, 6, 7, 8), 1))
        val keys = database.rows("SELECT id, request_id, label FROM keys ORDER BY id") {
            listOf(it.long(0), it.long(1), it.long(2))
        }
        assertEquals(listOf(listOf(1L, null, 0L), listOf(2L, 1L, null), listOf(3L, 1L, null)), keys)
        assertEquals(3, ofRequest(1).second.count { it == 1 })
        // New samples get an intake key of their own again.
        toy.add("dog", 4)
        assertEquals(4L, database.long("SELECT key_id FROM samples WHERE id = 9"))
    }

    @Test
    fun `a changed sample or a missing key is told`() {
        toy.add("cat", 3)
        val request = toy.submit("cat")
        for (column in listOf("wrapped" to "samples", "content" to "pixels")) {
            val (name, table) = column
            val id = if (table == "samples") "id" else "sample_id"
            val before = database.rows("SELECT $name FROM $table WHERE $id = 2") { it.blob(0)!! }.single()
            for (place in before.indices) {
                val changed = before.copyOf().also { it[place] = (it[place].toInt() xor 1).toByte() }
                database.execute("UPDATE $table SET $name = ? WHERE $id = 2", changed)
                val error = assertThrows(StorageException::class.java) { ofRequest(request) }
                assertTrue("sample 2" in error.message!!, error.message)
            }
            database.execute("UPDATE $table SET $name = ? WHERE $id = 2", before)
        }
        ofRequest(request)
        Files.delete(toy.path.resolve("keys/000001.key"))
        assertThrows(StorageException::class.java) { ofRequest(request) }
    }
}
