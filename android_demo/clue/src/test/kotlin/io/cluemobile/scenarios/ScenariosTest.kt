package io.cluemobile.scenarios

import io.cluemobile.Contract
import io.cluemobile.parse
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.MethodSource
import java.nio.file.Files
import java.nio.file.Path

/** The behaviour that all runtimes share, as data: contract/scenarios. */
internal class ScenariosTest {
    @TempDir
    lateinit var folder: Path

    @ParameterizedTest
    @MethodSource("names")
    fun `a scenario`(name: String) {
        val content = parse(String(Files.readAllBytes(SCENARIOS.resolve("$name.json"))))
        assertEquals(setOf("about", "steps"), content.keys)
        @Suppress("UNCHECKED_CAST")
        Player(folder).use { it.play(content["steps"] as List<Step>) }
    }

    @Test
    fun `what a scenario says is looked at`() {
        val opening = mapOf("do" to "open", "bundle" to "toy")
        Player(folder).use { player ->
            for (wrong in listOf("samples" to mapOf("cat" to 1L), "forgotten" to listOf("cat"), "keys" to 1L, "unknown" to 1L)) {
                assertThrows(AssertionError::class.java) { player.play(listOf(opening, mapOf("then" to mapOf(wrong)))) }
            }
            assertThrows(AssertionError::class.java) { player.play(listOf(opening + ("error" to listOf("cat")))) }
        }
    }

    companion object {
        @JvmStatic
        fun names(): List<String> = Files.newDirectoryStream(SCENARIOS, "*.json").use { paths ->
            paths.map { it.fileName.toString().removeSuffix(".json") }.sorted()
        }
    }
}

private val SCENARIOS: Path = Contract.folder.resolve("scenarios")
