package io.cluemobile.scenarios

import io.cluemobile.Classifier
import io.cluemobile.ClueException
import io.cluemobile.Contract
import io.cluemobile.ForgetRequest
import io.cluemobile.ForgetStore
import io.cluemobile.ForgottenChoice
import io.cluemobile.Options
import io.cluemobile.Pixels
import io.cluemobile.Progress
import io.cluemobile.RequestResult
import io.cluemobile.ToyImages
import io.cluemobile.Unlearner
import io.cluemobile.UpdatePolicy
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.contains
import io.cluemobile.files.sha256
import io.cluemobile.filesIn
import io.cluemobile.jvm.JvmPlatform
import io.cluemobile.killChildAtThePoint
import io.cluemobile.ort.OrtEngine
import io.cluemobile.parse
import io.cluemobile.receipts.Canonical
import io.cluemobile.receipts.FIRST
import io.cluemobile.request.Control
import io.cluemobile.request.carryOut
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import java.nio.file.Files
import java.nio.file.Path

internal typealias Step = Map<String, Any?>

/** A scenario's stores and the one that is open; contract/scenarios.md says what the steps mean. */
internal class Player(private val folder: Path) : AutoCloseable {
    private val images = ToyImages()
    private val engine = OrtEngine.create(1)
    private val remembered = HashMap<String, String>()
    private var name = "first"
    private var bundle = ""
    private var opened: ForgetStore? = null
    private val open: ForgetStore get() = checkNotNull(opened) { "the scenario opens a store first" }
    private val unlearner: Unlearner get() = Unlearner(open, engine)
    private val store: Path get() = folder.resolve(name).resolve("store")
    private val root: Path get() = folder.resolve(name).resolve(bundle)

    fun play(steps: List<Step>): Unit = steps.forEachIndexed { number, step ->
        try {
            play(step)
        } catch (error: Throwable) {
            throw AssertionError("in step ${number + 1}, $step: ${error.message}", error)
        }
    }

    private fun play(step: Step) {
        when {
            "then" in step -> {
                (step["then"] as Step).forEach { (key, wanted) -> then(key, wanted) }
                chainHolds()
            }
            "remember" in step -> remembered[step["remember"] as String] = open.serving().sha256
            "same_weights" in step -> assertEquals(remembered[step["same_weights"]], open.serving().sha256)
            "error" in step -> {
                val error = assertThrows(ClueException::class.java) { act(step) }
                for (word in step["error"] as List<*>) assertTrue(word as String in error.message!!, error.message)
            }
            else -> act(step)
        }
    }

    override fun close() {
        opened?.close()
        opened = null
    }

    // --- what is done

    private fun act(step: Step) {
        val request = (step["request"] as Long?) ?: 0
        when (val word = step["do"]) {
            "store" -> {
                close()
                name = step["name"] as String
            }
            "open" -> openStore(step["bundle"] as String, step["policy"] as String? ?: "refuse")
            "add" -> add(step)
            "submit" -> assertEquals(step["request"], unlearner.submit(asked(step)))
            "run" -> run(request, step)
            "run_next" -> {
                val next = unlearner.next()
                assertEquals(step["request"], next)
                if (next != null) assertEquals(step["status"], carry(next).status.word)
            }
            "cancel" -> assertTrue(unlearner.cancel(request))
            "retry" -> assertEquals(step["new"], unlearner.retry(request, step["seed"] as Long))
            "rollback" -> assertEquals(step["lost"], unlearner.rollback(step["generation"] as Long))
            "seal" -> seal(request, step["crash"] as String?)
            else -> error("scenarios.md has no step $word")
        }
    }

    private fun openStore(bundle: String, policy: String) {
        close()
        this.bundle = bundle
        // A copy: sealing erases its weights.
        if (!Files.exists(root)) Contract.toy(root.parent, bundle)
        opened = ForgetStore.open(store, ClueBundle.open(root), JvmPlatform(), UpdatePolicy.valueOf(policy.uppercase()))
    }

    private fun chosen(range: Any?, of: String): List<Pixels> {
        val (first, end) = (range as List<*>).map { (it as Long).toInt() }
        return images.of(of).subList(first, end)
    }

    private fun add(step: Step) {
        val label = step["label"] as String
        val of = step["of"] as String? ?: label.takeIf(images::has) ?: "cat" // of a class that there is not, any image will do
        assertEquals(step["new"], open.add(chosen(step["images"], of), label).size.toLong())
    }

    @Suppress("UNCHECKED_CAST")
    private fun asked(step: Step): ForgetRequest {
        val options = Options.of(step["options"] as Step? ?: emptyMap())
        val scalars = (step["scalars"] as Step?).orEmpty().mapValues { (it.value as Number).toDouble() }
        val seed = step["seed"] as Long
        val label = step["label"] as String? ?: return ForgetRequest.ofSamples(
            (step["samples"] as List<*>).map { it as Long }, seed, scalars, options,
        )
        return ForgetRequest.ofClass(label, seed, scalars, options)
    }

    private fun run(request: Long, step: Step) {
        val crash = step["crash"] as String?
        if (crash != null) return crash(request, crash, step["after"] as Long? ?: 0)
        var done = 0L
        fun reached(name: String) = (step[name] as Long?)?.let { done >= it } ?: false
        val result = carry(request, { if (it is Progress.Step) done++ }, { reached("cancel_after") }, { reached("stop_after") })
        assertEquals(step["status"], result.status.word)
    }

    private fun carry(
        request: Long,
        progress: (Progress) -> Unit = {},
        cancel: () -> Boolean = { false },
        stop: () -> Boolean = { false },
    ): RequestResult = carryOut(open.store, engine, request, Control(open.platform.device, progress, cancel, stop))

    private fun seal(request: Long, crash: String?) {
        if (crash == null) unlearner.seal(request) else crash(request, crash, 0)
    }

    /** Lets a process of its own open the store and be killed on its way. */
    private fun crash(request: Long, point: String, after: Long) {
        close()
        killChildAtThePoint(Crash::class.java, root.toString(), store.toString(), request.toString(), point, after.toString())
    }

    // --- what holds then

    @Suppress("UNCHECKED_CAST")
    private fun then(key: String, wanted: Any?) {
        when (key) {
            "requests" -> requests(wanted as List<Step>)
            "generations" -> generations(wanted as List<Step>)
            "generation_files" -> assertEquals(named(wanted, "safetensors"), names("generations"))
            "checkpoints" -> assertEquals(named(wanted, "safetensors"), names("checkpoints"))
            "samples" -> assertEquals(wanted, open.counts().mapValues { it.value.toLong() })
            "keys" -> assertEquals(wanted, names("keys").count { it.endsWith(".key") }.toLong())
            "forgotten" -> assertEquals(wanted, open.forgotten())
            "records" -> (wanted as Step).forEach { (request, phases) ->
                assertEquals(phases, open.costs.of(request.toLong()).map { it.phase })
            }
            "receipts" -> receipts(wanted as List<Step>)
            "answers" -> answers(wanted as Step)
            "bytes_of" -> noBytesOf(wanted)
            "bundle_weights" -> assertEquals(wanted, Files.exists(root.resolve("weights.safetensors")))
            else -> error("scenarios.md has no $key")
        }
    }

    private fun requests(wanted: List<Step>) {
        val found = open.requests()
        assertEquals(wanted.size, found.size)
        for ((row, expected) in found zip wanted) {
            val columns = mapOf(
                "id" to row.id, "kind" to row.kind, "class" to row.className, "status" to row.status.word,
                "samples" to row.samples.toLong(), "base_generation" to row.baseGeneration,
                "retry_of" to row.retryOf,
                "rolled_back" to (row.rolledBack != null), "sealed" to (row.sealed != null),
            )
            for ((name, value) in expected) {
                when (name) {
                    "reason" -> assertTrue(value as String in row.reason.orEmpty(), row.toString())
                    "evidence" -> (value as Step).forEach { (key, one) -> assertEquals(one, row.evidence[key], "$key of $row") }
                    else -> assertEquals(value, columns.getValue(name), "$name of $row")
                }
            }
        }
    }

    private fun generations(wanted: List<Step>) {
        val found = open.generations()
        assertEquals(wanted.size, found.size)
        for ((row, expected) in found zip wanted) {
            val columns = mapOf(
                "id" to row.id, "request_id" to row.request, "parent" to row.parent, "erased" to (row.erased != null),
                "serving" to row.serving,
            )
            for ((name, value) in expected) assertEquals(value, columns.getValue(name), "$name of $row")
        }
    }

    private fun names(folder: String): List<String> =
        Files.newDirectoryStream(store.resolve(folder)).use { paths -> paths.map { it.fileName.toString() }.sorted() }

    private fun named(ids: Any?, suffix: String): List<String> =
        (ids as List<*>).map { it.toString().padStart(6, '0') + "." + suffix }

    private fun receipts(wanted: List<Step>) {
        val found = open.receipts()
        assertEquals(wanted.map { it["kind"] }, found.map { it.kind })
        for ((receipt, expected) in found zip wanted) {
            val parsed = parse(receipt.text)
            assertEquals(receipt.kind, parsed["kind"])
            if ("request_id" in expected) assertEquals(expected["request_id"], (parsed["request"] as Step)["id"])
        }
    }

    /** Each receipt is canonical, names the one before, and has a file of just its bytes. */
    private fun chainHolds() {
        var previous = FIRST
        open.receipts().forEachIndexed { i, receipt ->
            val parsed = parse(receipt.text)
            assertEquals(listOf(i + 1L, previous), listOf(parsed["number"], parsed["previous"]))
            assertEquals(receipt.text, Canonical.dumps(parsed))
            val file = store.resolve("receipts").resolve((i + 1).toString().padStart(6, '0') + ".json")
            assertEquals(receipt.text, String(Files.readAllBytes(file)))
            previous = sha256(receipt.text.toByteArray())
        }
    }

    private fun answers(wanted: Step) {
        val choice = ForgottenChoice.valueOf((wanted["choice"] as String).uppercase())
        val found = Classifier(open, engine).use { it.predict(chosen(wanted["images"], wanted["of"] as String), choice) }
        assertNotNull(wanted["never"] ?: wanted["classes"])
        wanted["never"]?.let { never -> assertFalse(found.any { it.name == never }, found.toString()) }
        wanted["classes"]?.let { classes ->
            assertEquals(classes, found.map { it.name })
            assertEquals(wanted["forgotten"], found.map { it.forgotten })
        }
    }

    /** Of the sealed class's images nothing is found in any file of the store. */
    private fun noBytesOf(wanted: Any?) {
        assertEquals(emptyList<Any>(), wanted)
        for (file in filesIn(store)) {
            val content = Files.readAllBytes(file)
            for (image in images.of("cat")) assertFalse(content.contains(image.bytes), "$file has an image of cat")
        }
    }
}
