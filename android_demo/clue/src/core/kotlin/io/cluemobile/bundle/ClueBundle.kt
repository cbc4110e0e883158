package io.cluemobile.bundle

import io.cluemobile.BundleException
import io.cluemobile.ClueException
import io.cluemobile.files.sha256
import io.cluemobile.files.sha256File
import io.cluemobile.files.storage
import io.cluemobile.plan.Node
import io.cluemobile.unknown
import java.nio.file.Files
import java.nio.file.Path
import kotlin.math.abs

/** Images of [channels] x [height] x [width]. */
public data class InputShape(public val channels: Int, public val height: Int, public val width: Int)

/** How the name of the file ends that stands in place of erased weights. */
internal const val ERASED: String = ".erased"

/** An array that the runtime holds while a request runs; [shape] is that of one row for a cache. */
internal class Value(
    val name: String,
    val role: Role,
    val shape: List<Int>,
    val init: Init,
    /** Zeros and ones only, which a checkpoint packs. */
    val bits: Boolean,
) {
    /** The array of the weights file that it starts from. */
    val weightsKey: String? get() = (init as? Init.Weights)?.key
}

/** Where the first content of a value comes from. */
internal sealed interface Init {
    data object Zeros : Init

    class Weights(val key: String) : Init

    class File(val file: String, val key: String) : Init

    class Copy(val value: String) : Init

    class Random(val stream: String) : Init
}

/** A named random stream; [shape] is one sample's draw, the last three as its distribution needs. */
internal class RandomStream(
    val name: String,
    val stream: Long,
    val distribution: String,
    val shape: List<Int>,
    val low: Double,
    val high: Double,
    val classes: Int,
)

/** The retain-free signal: its limits in percent (docs/runtime-contract.md). */
internal data class Collapse(val probes: Int, val keptAtLeast: Double, val largestShareAtMost: Double)

/**
 * A bundle that was opened and checked: what the manifest says, and where its files are. Read-only; may be shared by threads.
 */
public class ClueBundle internal constructor(
    /** The folder. */
    public val root: Path,
    public val name: String,
    /** The SHA-256 of the manifest in hex: what identifies the bundle. */
    public val sha256: String,
    public val classes: List<String>,
    public val input: InputShape,
    /** `RGB` or `L`. */
    public val color: String,
    /** How an image of another size becomes one of the model's: `stretch` or `center-crop` (contract/resize.md). */
    public val fit: String,
    /** The method's name, for people. */
    public val method: String,
    public val batch: Int,
    public val tunedBatch: Int,
    public val scalars: Map<String, Double>,
    /** Percent that the forget accuracy must come down to. */
    public val forgetAccuracyAtMost: Double,
    /** The same for requests of samples; null where the bundle does not say. */
    public val sampleAccuracyAtMost: Double?,
    /** Fewer images of a class than this were seen to be too few; 0 where nothing is known. */
    public val leastImages: Int,
    public val license: String,
    public val notices: List<String>,
    public val weights: FileEntry,
    public val programs: Map<String, Program>,
    internal val values: Map<String, Value>,
    internal val randoms: Map<String, RandomStream>,
    internal val plan: List<Node>,
    internal val files: Map<String, FileEntry>,
    internal val guard: String?,
    internal val guardDropAtMost: Double?,
    internal val collapse: Collapse?,
) {
    /**
     * The index of a class given by its name, or by its index in digits.
     *
     * @throws ClueException listing the classes when there is none such.
     */
    public fun label(name: String): Int {
        val named = classes.indexOf(name)
        if (named >= 0) return named
        val index = name.toBigIntegerOrNull()?.takeIf { name.all(Char::isDigit) } ?: throw unknown("class", name, classes)
        if (index >= classes.size.toBigInteger()) {
            throw ClueException("label $index is out of range: ${this.name} has classes 0 to ${classes.size - 1}")
        }
        return index.toInt()
    }

    /**
     * The method's scalars, some of them replaced by [given].
     *
     * @throws ClueException for an unknown name, or a value that is not finite in float32.
     */
    public fun mergedScalars(given: Map<String, Double>): Map<String, Double> {
        for ((name, value) in given) {
            if (name !in scalars) throw unknown("scalar", name, scalars.keys)
            if (!(abs(value) <= Float.MAX_VALUE.toDouble())) throw ClueException("scalar $name is $value: it must be finite in float32")
        }
        return scalars + given
    }

    /** The path of a listed file or folder of listed files. Throws [BundleException] when it is not listed or lies behind a link. */
    internal fun file(name: String): Path {
        if (name !in files && inside(name).isEmpty()) fail("$name is used but not in the list of files")
        val parts = name.split('/')
        if (name.length > MAX_PATH || parts.any { it.isEmpty() || it == "." || it == ".." }) {
            fail("${name.take(MAX_PATH)} is no plain path inside the bundle")
        }
        return parts.fold(root) { folder, part ->
            // Where a link leads can be changed after it was checked.
            folder.resolve(part).also { if (Files.isSymbolicLink(it)) fail("$name: $part is a link, and a bundle has none") }
        }
    }

    /** The listed hash of a file; of a folder, that of the lines "SHA256  PATH" of its files, sorted. */
    internal fun sha256Of(name: String): String =
        files[name]?.sha256 ?: sha256(inside(name).joinToString("") { "${it.sha256}  ${it.file}\n" }.encodeToByteArray())

    private fun inside(folder: String): List<FileEntry> =
        files.values.filter { it.file.startsWith("$folder/") }.sortedBy { it.file }

    /**
     * Where this folder was copied from, when that cannot be erased (an app's assets); set by who made the copy, before anybody
     * else has the bundle.
     */
    internal var copyOf: String? = null

    /** The empty file that stands in place of the bundle's weights once sealing has erased them. */
    internal val erasedMark: Path get() = root.resolve(weights.file + ERASED)

    /** Throws the [BundleException] for a manifest that contradicts itself. */
    internal fun fail(problem: String): Nothing = throw BundleException("bundle $root: $problem; export it again")

    private fun checkFiles(verify: Boolean) {
        val delivered = Files.exists(root.resolve(RUNTIME))
        for (entry in files.values) {
            if (entry.file.startsWith("$RUNTIME/") && !delivered) continue
            val path = file(entry.file)
            if (entry.file == weights.file && !Files.exists(path) && Files.exists(erasedMark)) continue
            if (!Files.exists(path)) throw broken("${entry.file} is missing")
            if (!Files.isRegularFile(path)) throw broken("${entry.file} is no regular file")
            val size = storage("read", path) { Files.size(path) }
            if (size != entry.bytes) throw broken("${entry.file} has $size bytes instead of ${entry.bytes}")
            if (verify && sha256File(path) != entry.sha256) {
                throw broken("${entry.file} was changed: its SHA-256 is not the manifest's")
            }
        }
    }

    private fun broken(problem: String) = BundleException("bundle $root: $problem; copy the bundle again")

    public companion object {
        private const val MAX_PATH = 255

        /** What an app or a device is built from; who has built it may leave the folder out. */
        private const val RUNTIME = "runtime"

        /**
         * Read and check a bundle folder: signature (where [trusted] lists of public keys are given: of each, one key must have
         * signed), hash, JSON, schema, references, and the size of every file; with [verify] also every file's SHA-256.
         *
         * @throws BundleException naming the file or the place in the manifest that is wrong.
         */
        public fun open(root: Path, verify: Boolean = true, trusted: List<Path> = emptyList()): ClueBundle {
            val manifest = Manifest.read(root, trusted)
            val bundle = bundleOf(root, manifest)
            bundle.checkFiles(verify)
            checkReferences(bundle, manifest.json)
            return bundle
        }
    }
}
