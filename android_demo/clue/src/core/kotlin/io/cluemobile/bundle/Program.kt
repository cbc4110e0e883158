package io.cluemobile.bundle

/** What an array of a program is for (contract/plan.md, "Programs"). */
public enum class Role {
    STATE, CARRY, CACHE, BATCH, SCALAR, RANDOM, METRIC, RESULT;

    internal companion object {
        fun of(name: String): Role = valueOf(name.uppercase())
    }
}

/** An input or output of a program; [binds] is the name it is joined to, empty for results and metrics. */
public data class Port(
    public val name: String,
    public val role: Role,
    public val shape: List<Int>,
    public val binds: String,
)

/** A file of the bundle: its path inside the folder, its SHA-256 in hex and its size in bytes. */
public data class FileEntry(public val file: String, public val sha256: String, public val bytes: Long)

/** A pure function with fixed shapes: [files] by engine, [flops] and [peakBytes] as export planned them. */
public class Program internal constructor(
    public val name: String,
    public val batch: Int,
    public val inputs: List<Port>,
    public val outputs: List<Port>,
    public val flops: Long,
    public val peakBytes: Long,
    public val files: Map<String, FileEntry>,
    internal val golden: Golden,
)

/** How to make a program's inputs, and where its expected outputs are (contract/golden.md). */
internal class Golden(
    val file: String,
    val sha256: String,
    val seed: Long,
    val inputs: Map<String, List<GoldenDraw>>,
    val outputs: Map<String, GoldenOutput>,
)

internal class GoldenDraw(val distribution: String, val length: Int, val a: Double, val b: Double)

internal class GoldenOutput(val stride: Int, val tolerance: Double)
