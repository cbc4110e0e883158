package io.cluemobile.store

import io.cluemobile.ClueException
import io.cluemobile.ForgetRequest
import io.cluemobile.Options
import io.cluemobile.StorageException
import io.cluemobile.ToyTest
import io.cluemobile.jvm.JdbcDatabase
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.nio.file.Files

/** What sealing tells before, what it leaves, and what holds it up; contract/scenarios has the rest. */
internal class SealingTest : ToyTest() {
    @Test
    fun `the plan names what is then erased`() {
        val id = toy.forget()
        toy.store.add(toy.images.of("cat").drop(19), "cat")
        val plan = toy.unlearner.sealPlan(id)
        assertEquals(listOf(19, 5), listOf(plan.samples, plan.classSamples))
        assertEquals(emptyList<Long>(), plan.later)
        val weights = listOf(toy.path.resolve("generations/000001.safetensors"), toy.root.resolve("weights.safetensors"))
        assertEquals(weights.map { it.toString() }, plan.files)
        assertEquals(weights.sumOf { Files.size(it) }, plan.bytes)
        assertTrue(toy.unlearner.seal(id).isEmpty())
        for (path in weights) assertFalse(Files.exists(path))
        assertEquals(mapOf("cat" to 5), toy.store.counts())
        toy.reopen()
    }

    @Test
    fun `weights that the bundle was copied from are told as not erased`() {
        val id = toy.forget()
        toy.store.bundle.copyOf = "assets/toy.clue"
        val plan = toy.unlearner.sealPlan(id)
        assertEquals(listOf("assets/toy.clue/weights.safetensors"), plan.notErased.map { it.path })
        assertEquals(plan.notErased, toy.unlearner.seal(id))
        assertTrue("assets/toy.clue/weights.safetensors" in toy.store.receipts().last().text)
        assertFalse(Files.exists(toy.root.resolve("weights.safetensors")))
    }

    @Test
    fun `every key is new afterwards`() {
        val id = toy.forget()
        toy.add("dog", 4)
        val dog = toy.submit("dog", Options(accuracyAtMost = 100.0))
        fun keys() = Files.newDirectoryStream(toy.path.resolve("keys")).use { paths ->
            paths.associate { it.fileName.toString() to Files.readAllBytes(it).toList() }
        }
        val before = keys()
        toy.unlearner.seal(id)
        assertTrue(keys().values.none { it in before.values } && keys().keys.none { it in before.keys })
        // The samples that are left can still be read.
        assertEquals(4, toy.store.store.samples.ofRequest(dog, 16).second.size)
    }

    @Test
    fun `a request that shares samples with an unfinished one waits`() {
        val id = toy.forget()
        val again = toy.unlearner.submit(ForgetRequest.ofClass("cat", 1))
        val error = assertThrows(ClueException::class.java) { toy.unlearner.seal(id) }
        assertTrue("request $again" in error.message!!, error.message)
        toy.unlearner.cancel(again)
        toy.unlearner.seal(id)
    }

    @Test
    fun `a reader of the database holds it up, and it is carried on`() {
        val id = toy.forget()
        val reader = JdbcDatabase.open(toy.path.resolve("store.db"))
        reader.execute("BEGIN")
        reader.query("SELECT count(*) FROM samples") { }
        toy.store.store.database.pragma("busy_timeout = 50")
        assertThrows(StorageException::class.java) { toy.unlearner.seal(id) }
        assertEquals(null, toy.store.request(id).sealed)
        reader.execute("ROLLBACK")
        reader.close()
        toy.reopen()
        assertTrue(toy.store.request(id).sealed != null)
        assertEquals(listOf("forget", "seal"), toy.store.receipts().map { it.kind })
    }

    @Test
    fun `weights of a bundle that cannot be erased are on the receipt`() {
        val id = toy.forget()
        // A folder in the place of the mark: the weights cannot be renamed to it.
        Files.createDirectories(toy.root.resolve("weights.safetensors.erased/in the way"))
        val left = toy.unlearner.seal(id)
        assertEquals(listOf(toy.root.resolve("weights.safetensors").toString()), left.map { it.path })
        assertTrue("weights.safetensors" in toy.store.receipts().last().text.substringAfter("not_erased"))
    }
}
