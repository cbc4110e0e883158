package io.cluemobile.requests

import io.cluemobile.Contract
import io.cluemobile.ForgetRequest
import io.cluemobile.Options
import io.cluemobile.Status
import io.cluemobile.Unlearner
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.engine.Engine
import io.cluemobile.jvm.Main
import io.cluemobile.startChild
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path

/** The command line of the library on a computer, in a process of its own. */
class MainTest {
    @TempDir
    lateinit var folder: Path
    private lateinit var root: Path

    @BeforeEach
    fun copy() {
        root = Contract.toy(folder)
    }

    private fun run(vararg arguments: String): Pair<Int, List<String>> {
        val process = startChild(Main::class.java, *arguments)
        val lines = process.inputStream.bufferedReader().readLines()
        return process.waitFor() to lines
    }

    @Test
    fun `check compares every program with its golden outputs`() {
        val (code, lines) = run("check", root.toString())
        assertEquals(0, code, lines.joinToString("\n"))
        assertTrue(lines.isNotEmpty() && lines.all { it.startsWith("ok ") }, lines.joinToString("\n"))
    }

    @Test
    fun `a class is forgotten and logged`() {
        val store = folder.resolve("store")
        openStore(store, ClueBundle.open(root)).use { it.add(toyImages("cat", 10), "cat") }
        val (code, lines) = run("forget", root.toString(), store.toString(), "cat", "7")
        assertEquals(0, code, lines.joinToString("\n"))
        assertTrue("done" in lines)
        val (_, log) = run("log", root.toString(), store.toString())
        assertTrue(log[0].startsWith("request 1, cat, ") && "done; forget accuracy: 100.0 % before" in log[0], log[0])
        assertEquals(listOf("teach", "learn", "verify", "finish", "request"), log.drop(1).map { it.trim().substringBefore(':') })
    }

    @Test
    fun `run passes over what is refused`() {
        val store = folder.resolve("store")
        openStore(store, ClueBundle.open(root)).use { opened ->
            opened.add(toyImages("cat", 10), "cat")
            opened.add(toyImages("dog", 10), "dog")
            val threads = object : Engine by engine() {
                override val threads = 4
            }
            opened.pauseAfter(Unlearner(opened, threads).submit(longRequest(4)), operations = 25, threads)
            Unlearner(opened, engine()).submit(ForgetRequest.ofClass("dog", 5, options = Options(accuracyAtMost = 100.0)))
        }
        val (code, lines) = run("run", root.toString(), store.toString())
        assertEquals(2, code, lines.joinToString("\n"))
        assertTrue(lines.any { it.startsWith("clue: request 1: ") && "this has 1" in it }, lines.joinToString("\n"))
        openStore(store, ClueBundle.open(root)).use { opened ->
            assertEquals(listOf(Status.PAUSED, Status.DONE), opened.requests().map { it.status })
        }
    }

    @Test
    fun `what the user can put right is one line`() {
        val (code, lines) = run("forget", root.toString(), folder.resolve("store").toString(), "owl")
        assertEquals(2, code)
        assertEquals(listOf("clue: unknown class 'owl': choices are 10, cat, dog"), lines)
        assertEquals(2, run("dance", root.toString(), folder.resolve("store").toString()).first)
    }
}
