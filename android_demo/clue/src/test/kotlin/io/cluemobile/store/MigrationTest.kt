package io.cluemobile.store

import io.cluemobile.Contract
import io.cluemobile.ForgetStore
import io.cluemobile.Status
import io.cluemobile.ToyImages
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.contains
import io.cluemobile.files.sha256
import io.cluemobile.files.sha256File
import io.cluemobile.filesIn
import io.cluemobile.jvm.JdbcDatabase
import io.cluemobile.jvm.JvmPlatform
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Files
import java.nio.file.Path

private const val TIME = "2026-11-01T10:00:00+00:00"

/** A store of version 1 becomes one of version 2, with everything kept. */
internal class MigrationTest {
    @TempDir
    lateinit var folder: Path

    private val images = ToyImages()
    private val names = listOf("cat", "dog", "10")

    @Test
    fun `everything is kept and encrypted`() {
        val bundle = ClueBundle.open(Contract.toy(folder))
        val store = folder.resolve("store")
        old(store, bundle)
        repeat(2) {
            // and it stays so
            ForgetStore.open(store, bundle, JvmPlatform()).use(::check)
        }
        for (file in filesIn(store)) {
            val content = Files.readAllBytes(file)
            for (name in names) for (image in images.of(name).take(4)) assertFalse(content.contains(image.bytes), file.toString())
        }
    }

    private fun check(store: ForgetStore) {
        val states = listOf(Status.FAILED to "it collapsed", Status.DONE to null, Status.FAILED to "interrupted")
        assertEquals(states, store.requests().map { it.status to it.reason })
        assertEquals(listOf(4, 4, 4), store.requests().map { it.samples })
        assertEquals(listOf(null, 1L), store.generations().map { it.parent })
        assertEquals(listOf("cat"), store.forgotten())
        assertEquals(listOf("x"), store.store.requests.records().map { it })
        assertEquals((1L..12L).toList(), store.samples().map { it.id })
        val (pixels, labels) = store.store.samples.ofRequest(2, 16)
        assertArrayEquals(images.of("cat").take(4).map { it.bytes }.reversed().reduce(ByteArray::plus), pixels)
        assertEquals(listOf(0, 0, 0, 0), labels.toList())
        // New generations come after every number that a file of version 1 can have.
        assertEquals(4L, store.store.database.long("SELECT seq + 1 FROM sqlite_sequence WHERE name = 'generations'"))
        assertFalse(store.store.database.any("SELECT 1 FROM sqlite_master WHERE name LIKE 'old_%'"))
    }

    /** A store as version 1 left it: weights files named after requests, pixels in the clear, no keys. */
    private fun old(folder: Path, bundle: ClueBundle) {
        Files.createDirectories(folder.resolve("generations"))
        val database = JdbcDatabase.open(folder.resolve("store.db"))
        val schema = Contract.folder.resolveSibling("tests/pi_runtime/data/schema_v1.sql")
        String(Files.readAllBytes(schema)).lines().joinToString("\n") { it.substringBefore("--") }.split(";")
            .filter { it.isNotBlank() }.forEach { database.execute(it) }
        database.query("PRAGMA journal_mode = WAL") { }
        database.execute("PRAGMA user_version = 1")
        val facts = mapOf(
            "name" to "toy", "weights_sha256" to bundle.weights.sha256, "classes" to "[\"cat\", \"dog\", \"10\"]",
            "input" to "[1, 4, 4]",
        )
        for ((key, value) in facts) database.execute("INSERT INTO bundle VALUES (?, ?)", key, value)
        names.forEachIndexed { label, name ->
            images.of(name).take(4).forEachIndexed { i, image ->
                database.execute(
                    "INSERT INTO samples VALUES (?, ?, ?, 4, 4, 1, ?, ?)",
                    4 * label + i + 1, sha256(image.bytes), label, image.bytes, TIME,
                )
            }
        }
        val requests = listOf(
            listOf(1, 0, "cat", "failed", "it collapsed", "{\"steps\": 3}", TIME),
            listOf(2, 0, "cat", "done", null, "{\"steps\": 4}", TIME),
            listOf(3, 1, "dog", "running", null, null, null),
        )
        for ((id, label, name, status, reason, evidence, finished) in requests) {
            database.execute(
                "INSERT INTO requests VALUES (?, ?, ?, ?, 5, '{\"lr\": 0.5}', ?, ?, ?, ?)",
                id, label, name, status, reason, evidence, TIME, finished,
            )
            for (position in 0..3) {
                database.execute("INSERT INTO request_samples VALUES (?, ?, ?)", id, position, 4 * (label as Int) + 4 - position)
            }
        }
        listOf(null to "000000", 2 to "000002").forEachIndexed { i, (request, name) ->
            val file = folder.resolve("generations/$name.safetensors")
            Files.copy(bundle.root.resolve("weights.safetensors"), file)
            database.execute(
                "INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?)", i + 1, request, "$name.safetensors", sha256File(file), TIME, i,
            )
        }
        database.execute("INSERT INTO records VALUES (3, 2, 'learn', 'x')")
        database.close()
    }

    private operator fun <T> List<T>.component6() = this[5]

    private operator fun <T> List<T>.component7() = this[6]
}
