package io.cluemobile

import io.cluemobile.files.sha256File
import io.cluemobile.json.JsonObject
import io.cluemobile.json.JsonText
import io.cluemobile.json.StrictJson
import io.cluemobile.json.asObject
import java.nio.file.Files
import java.nio.file.Path
import kotlin.io.path.createDirectories
import kotlin.io.path.isDirectory
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes
import kotlin.io.path.writeText

/** The files of contract/ that every runtime is held to; the build says where they are. */
internal object Contract {
    val folder: Path = Path.of(checkNotNull(System.getProperty("clue.contract")) { "run the tests by Maven" })

    fun json(name: String): JsonObject = StrictJson.parse(folder.resolve(name).readBytes(), 64 shl 20).asObject()

    /** A copy of the toy bundle in [folder], which a test may change. */
    fun toy(folder: Path, name: String = "toy"): Path = copy(Contract.folder.resolve("scenarios/bundles/$name"), folder.resolve(name))

    fun copy(from: Path, to: Path): Path {
        Files.walk(from).use { paths ->
            for (path in paths) {
                val target = to.resolve(from.relativize(path).toString())
                if (path.isDirectory()) target.createDirectories() else target.writeBytes(path.readBytes())
            }
        }
        return to
    }
}

/** Write a changed manifest with the hash that makes it whole again: what a test wants to be found is what it changed. */
internal fun changeManifest(bundle: Path, change: (MutableMap<String, Any?>) -> Unit) {
    val manifest = mutable(StrictJson.parse(bundle.resolve("manifest.json").readBytes(), 64 shl 20)) as MutableMap<String, Any?>
    change(manifest)
    writeManifest(bundle, JsonText.of(manifest).encodeToByteArray())
}

internal fun writeManifest(bundle: Path, content: ByteArray) {
    bundle.resolve("manifest.json").writeBytes(content)
    bundle.resolve("manifest.sha256").writeText(sha256File(bundle.resolve("manifest.json")) + "  manifest.json\n")
}

/** JSON whose maps and lists can be changed. */
private fun mutable(value: Any?): Any? = when (value) {
    is Map<*, *> -> value.entries.associateTo(LinkedHashMap<Any?, Any?>()) { it.key to mutable(it.value) }
    is List<*> -> value.mapTo(ArrayList<Any?>()) { mutable(it) }
    else -> value
}

/** The object at a path of keys and places in lists. */
internal fun MutableMap<String, Any?>.at(vararg path: Any): MutableMap<String, Any?> {
    var here: Any? = this
    for (step in path) here = if (step is Int) (here as List<*>)[step] else (here as Map<*, *>)[step]
    @Suppress("UNCHECKED_CAST")
    return here as MutableMap<String, Any?>
}
