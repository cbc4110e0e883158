package io.cluemobile.jvm

import io.cluemobile.ClueException
import io.cluemobile.ForgetRequest
import io.cluemobile.ForgetStore
import io.cluemobile.Options
import io.cluemobile.Progress
import io.cluemobile.RequestResult
import io.cluemobile.Status
import io.cluemobile.Unlearner
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.engine.engine
import io.cluemobile.ort.OrtEngine
import io.cluemobile.run.checkGolden
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.runBlocking
import java.nio.file.Files
import java.nio.file.Path
import kotlin.system.exitProcess

private const val USAGE = """usage: COMMAND BUNDLE STORE [...]
  check BUNDLE                          compare every program with the bundle's golden outputs
  add BUNDLE STORE CLASS IMAGE...       store images of a class
  forget BUNDLE STORE CLASS [SEED]      forget a class with its stored images
  run BUNDLE STORE                      carry out what is queued or was interrupted, each request once
  log BUNDLE STORE                      show the requests so far and their costs"""
private const val WRONG = 2

/** What failed its checks, paused or was cancelled ends with clue-pi's codes. */
private val EXIT_CODES = mapOf(Status.DONE to 0, Status.FAILED to 1, Status.PAUSED to 3, Status.CANCELLED to 130)

/** The library at work on a computer: to try a bundle, and for tests that need a process of its own. */
internal object Main {
    @JvmStatic
    fun main(arguments: Array<String>) {
        val code = try {
            command(arguments.toList())
        } catch (error: ClueException) {
            System.err.println("clue: ${error.message}")
            WRONG
        }
        exitProcess(code)
    }

    private fun command(arguments: List<String>): Int {
        val command = arguments.firstOrNull()
        if (command == "check" && arguments.size == 2) return check(ClueBundle.open(Path.of(arguments[1])))
        if (arguments.size < 3) throw ClueException(USAGE)
        val bundle = ClueBundle.open(Path.of(arguments[1]))
        val rest = arguments.drop(3)
        return ForgetStore.open(Path.of(arguments[2]), bundle, JvmPlatform()).use { store ->
            when (command) {
                "add" -> add(store, rest)
                "forget" -> forget(store, rest)
                "run" -> runNext(store)
                "log" -> log(store)
                else -> throw ClueException(USAGE)
            }
        }
    }

    private fun check(bundle: ClueBundle): Int {
        val results = bundle.checkGolden(bundle.engine(listOf(OrtEngine), threads = 1))
        for (each in results) {
            val verdict = if (each.ok) "ok" else "WRONG"
            println("$verdict ${each.program} ${each.output}: %.1e, at most %.1e".format(each.error, each.tolerance))
        }
        return if (results.all { it.ok }) 0 else 1
    }

    private fun add(store: ForgetStore, rest: List<String>): Int {
        if (rest.size < 2) throw ClueException(USAGE)
        val images = rest.drop(1).map { file -> store.read(file) { Files.newInputStream(Path.of(file)) } }
        println("${store.add(images, rest[0]).size} new images of ${rest[0]}")
        return 0
    }

    private fun forget(store: ForgetStore, rest: List<String>): Int {
        if (rest.isEmpty()) throw ClueException(USAGE)
        val seed = rest.getOrNull(1)?.let { it.toLongOrNull() ?: throw ClueException("the seed '$it' is no whole number") }
        return carryOut(unlearner(store).forget(ForgetRequest.ofClass(rest[0], seed, options = Options())))
    }

    private fun runNext(store: ForgetStore): Int {
        val unlearner = unlearner(store)
        val tried = mutableSetOf<Long>()
        var code = 0
        while (true) {
            val id = unlearner.next(tried) ?: return code
            tried += id
            val one = try {
                carryOut(unlearner.run(id))
            } catch (error: ClueException) {
                System.err.println("clue: request $id: ${error.message}")
                WRONG
            }
            code = maxOf(code, one)
        }
    }

    private fun log(store: ForgetStore): Int {
        for (request in store.requests()) {
            val outcome = told(request.status, request.reason, request.evidence).joinToString("; ")
            println("request ${request.id}, ${request.about}, ${request.created}: $outcome")
            store.costs.of(request.id).forEach { println(told(it)) }
        }
        return 0
    }

    private fun unlearner(store: ForgetStore) = Unlearner(store, store.bundle.engine(listOf(OrtEngine), threads = 1))

    /** Says each operation, so that who started the process sees how far it is, and the outcome in the end. */
    private fun carryOut(flow: Flow<Progress>): Int = runBlocking {
        lateinit var result: RequestResult
        flow.collect { progress ->
            when (progress) {
                is Progress.Step -> System.err.println("${progress.done}/${progress.total} ${progress.phase} epoch ${progress.epoch + 1}")
                is Progress.ForgetAccuracy -> System.err.println("forget accuracy ${progress.percent} %")
                is Progress.Ended -> result = progress.result
            }
        }
        told(result.status, result.reason, result.evidence).forEach(::println)
        EXIT_CODES.getValue(result.status)
    }
}
