package io.cluemobile.bundle

import io.cluemobile.BundleException
import io.cluemobile.ClueException
import io.cluemobile.Contract
import io.cluemobile.NewerBundleException
import io.cluemobile.at
import io.cluemobile.changeManifest
import io.cluemobile.files.hex
import io.cluemobile.writeManifest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Files
import java.nio.file.Path
import java.security.KeyPairGenerator
import java.security.Signature
import java.util.Base64
import kotlin.io.path.createSymbolicLinkPointingTo
import kotlin.io.path.deleteExisting
import kotlin.io.path.fileSize
import kotlin.io.path.moveTo
import kotlin.io.path.readBytes
import kotlin.io.path.readText
import kotlin.io.path.writeBytes
import kotlin.io.path.writeText

class ClueBundleTest {
    @TempDir
    lateinit var folder: Path
    private lateinit var root: Path

    @BeforeEach
    fun copy() {
        root = Contract.toy(folder)
    }

    private fun refused(vararg words: String, open: () -> Any = { ClueBundle.open(root) }) {
        val error = assertThrows(BundleException::class.java) { open() }
        for (word in words) assertTrue(word in error.message.orEmpty()) { "'$word' is not in: ${error.message}" }
    }

    private fun refusedWith(vararg words: String, change: (MutableMap<String, Any?>) -> Unit) {
        root = Contract.toy(Files.createTempDirectory(folder, "changed"))
        changeManifest(root, change)
        refused(*words)
    }

    @Test
    fun `a sound bundle has what its manifest says`() {
        val bundle = ClueBundle.open(root)
        assertEquals(listOf("cat", "dog", "10"), bundle.classes)
        assertEquals(InputShape(1, 4, 4), bundle.input)
        assertEquals(4, bundle.batch)
        assertEquals(25.0, bundle.forgetAccuracyAtMost)
        assertEquals(root.resolve("manifest.sha256").readText().substringBefore(' '), bundle.sha256)
        assertEquals(1, bundle.label("dog"))
        assertEquals(2, bundle.label("10"))
        assertEquals(1, bundle.label("1"))
        for (wrong in listOf("owl", "3", "-1", "1".repeat(50))) assertThrows(ClueException::class.java) { bundle.label(wrong) }
        assertEquals(0.5, bundle.mergedScalars(mapOf("lr" to 0.5))["lr"])
        assertThrows(ClueException::class.java) { bundle.mergedScalars(mapOf("nothing" to 1.0)) }
        for (wrong in listOf(Double.NaN, 1e39)) assertThrows(ClueException::class.java) { bundle.mergedScalars(mapOf("lr" to wrong)) }
    }

    @Test
    fun `a flipped byte in any file is found`() {
        val files = Files.walk(root).use { paths -> paths.filter { Files.isRegularFile(it) }.map { root.relativize(it) }.toList() }
        assertTrue(files.size > 10)
        for (file in files) {
            val copy = Contract.toy(Files.createTempDirectory(folder, "flipped"))
            val path = copy.resolve(file)
            val content = path.readBytes()
            content[content.size / 2] = (content[content.size / 2].toInt() xor 1).toByte()
            path.writeBytes(content)
            // README.md is listed as well: nothing in a bundle is outside of its hashes.
            assertThrows(BundleException::class.java, { ClueBundle.open(copy) }, file.toString())
        }
    }

    @Test
    fun `what is missing, cut off, longer or a link is found`() {
        val step = root.resolve("programs/onnx/step.onnx")
        val content = step.readBytes()
        step.deleteExisting()
        refused("step.onnx", "missing")
        step.writeBytes(content.copyOf(content.size - 1))
        refused("step.onnx", "bytes")
        step.writeBytes(content + 0)
        refused("step.onnx", "bytes")
        step.deleteExisting()
        val elsewhere = folder.resolve("elsewhere").apply { writeBytes(content) }
        step.createSymbolicLinkPointingTo(elsewhere)
        refused("step.onnx", "link")
        refused("no bundle") { ClueBundle.open(folder) }
    }

    @Test
    fun `a bundle without its runtime folder is whole, with it its files are checked`() {
        val row = """{"file": "runtime/build", "bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"""
        val text = root.resolve("manifest.json").readText()
        writeManifest(root, text.replaceFirst("\"files\": [", "\"files\": [$row, ").encodeToByteArray())
        ClueBundle.open(root)
        val runtime = Files.createDirectory(root.resolve("runtime"))
        refused("runtime/build", "missing")
        runtime.resolve("build").writeText("abd")
        refused("runtime/build", "changed")
        runtime.resolve("build").writeText("abc")
        ClueBundle.open(root)
    }

    @Test
    fun `weights that sealing erased are no fault, others that are missing are`() {
        val weights = root.resolve("weights.safetensors")
        weights.moveTo(folder.resolve("kept"))
        refused("weights.safetensors", "missing")
        root.resolve("weights.safetensors.erased").writeBytes(ByteArray(0))
        assertEquals(root.resolve("weights.safetensors.erased"), ClueBundle.open(root).erasedMark)
    }

    @Test
    fun `a manifest is read strictly`() {
        val good = root.resolve("manifest.json").readText()
        for ((bad, word) in listOf(
            good.replaceFirst("{", """{"name": "twice", """) to "twice",
            good.dropLast(1) to "not valid JSON",
            good.replace("\"batch\": 4", "\"batch\": 4.0") to "batch",
            good.replace("\"name\": \"toy\"", "\"name\": \"t\\u001by\"") to "control",
            good.replace("\"name\": \"toy\"", "\"nome\": \"toy\"") to "name",
            "[]" to "top level",
        )) {
            check(bad != good) { word }
            writeManifest(root, bad.encodeToByteArray())
            refused("manifest.json", word)
        }
        writeManifest(root, good.replace("\"schema_version\": 1", "\"schema_version\": 3").encodeToByteArray())
        assertThrows(NewerBundleException::class.java) { ClueBundle.open(root) }
    }

    @Test
    fun `names, shapes and loops that do not fit each other are found`() {
        refusedWith("twice", "value") { manifest ->
            val run = manifest.at("programs", "step", "outputs", 0)
            @Suppress("UNCHECKED_CAST")
            (manifest.at("programs", "step")["outputs"] as MutableList<Any?>).add(run + ("name" to "again"))
        }
        refusedWith("scalar") { it.at("method", "scalars").remove("lr") }
        refusedWith("no carry") { it.at("values").remove("velocity") }
        refusedWith("predict") { it.at("programs").remove("predict_1") }
        refusedWith("logits") { it.at("model")["classes"] = listOf("a", "b", "c", "d") }
        refusedWith("plain path") { manifest ->
            manifest.at("files", 0)["file"] = "a/./b"
        }
        refusedWith("listed twice") { manifest ->
            @Suppress("UNCHECKED_CAST")
            (manifest["files"] as MutableList<Any?>).add(manifest.at("files", 0))
        }
        refusedWith("SHA-256") { it.at("weights")["sha256"] = "0".repeat(64) }
        refusedWith("elements") { it.at("values", "velocity")["shape"] = listOf(65536L, 65536L) }
        refusedWith("random stream") { it.at("randoms", "level")["low"] = 1L }
        refusedWith("version 1") { manifest ->
            fun instead(nodes: Any?) {
                for (node in nodes as List<*>) {
                    @Suppress("UNCHECKED_CAST")
                    node as MutableMap<String, Any?>
                    if ("body" in node) instead(node["body"])
                    if (node["run"] == "step") node["instead"] = listOf(mapOf("run" to "step", "zeros" to mapOf("velocity" to 1L)))
                }
            }
            instead(manifest["plan"])
        }
    }

    @Test
    fun `only bundles that each list trusts are opened`() {
        val keys = KeyPairGenerator.getInstance("Ed25519").generateKeyPair()
        val other = KeyPairGenerator.getInstance("Ed25519").generateKeyPair()
        val raw = { pair: java.security.KeyPair -> pair.public.encoded.takeLast(32).toByteArray() }
        val hexList = folder.resolve("hex").apply { writeText("# mine\n\n${raw(keys).hex()} me\n") }
        val pem = Base64.getMimeEncoder(64, "\n".toByteArray()).encodeToString(keys.public.encoded)
        val pemList = folder.resolve("pem").apply { writeText("-----BEGIN PUBLIC KEY-----\n$pem\n-----END PUBLIC KEY-----\n") }
        val otherList = folder.resolve("other").apply { writeText(raw(other).hex()) }
        val open = { lists: List<Path> -> ClueBundle.open(root, trusted = lists) }
        refused("not signed") { open(listOf(hexList)) }
        val signature = Signature.getInstance("Ed25519").apply { initSign(keys.private) }
        signature.update(root.resolve("manifest.json").readBytes())
        root.resolve("manifest.sig").writeBytes(signature.sign())
        open(listOf(hexList, pemList))
        refused("not signed by a trusted key") { open(listOf(hexList, otherList)) }
        root.resolve("manifest.sig").let { it.writeBytes(it.readBytes().apply { this[5] = (this[5] + 1).toByte() }) }
        refused("not signed by a trusted key") { open(listOf(pemList)) }
        for (text in listOf("", "abc", raw(keys).hex() + "0")) {
            val list = folder.resolve("bad").apply { writeText(text) }
            refused { open(listOf(list)) }
        }
    }

    @Test
    fun `a signed manifest is not parsed before its signature was checked`() {
        val list = folder.resolve("list").apply { writeText("0".repeat(64)) }
        writeManifest(root, "not even JSON".encodeToByteArray())
        root.resolve("manifest.sig").writeBytes(ByteArray(64))
        refused("trusted key") { ClueBundle.open(root, trusted = listOf(list)) }
        assertEquals(64, root.resolve("manifest.sig").fileSize())
    }
}
