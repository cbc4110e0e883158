package io.cluemobile.plan

/** A node of a plan (contract/plan.md, "Nodes"). */
internal sealed interface Node

/** A node with others inside. */
internal sealed interface Block : Node {
    val body: List<Node>
}

/** A count or limit of the plan: as it stands, or the name of a scalar. */
internal sealed interface Number {
    class Fixed(val value: Double) : Number

    class Scalar(val name: String) : Number
}

/** A part of the plan whose cost is recorded under [name]. */
internal class Phase(val name: String, override val body: List<Node>) : Block

/** The body [count] times, each time with the next epoch. */
internal class Epochs(val count: Number, override val body: List<Node>) : Block

/** The body [count] times within the same epoch. */
internal class Repeat(val count: Number, override val body: List<Node>) : Block

/** The body once for each batch of [size]; [shuffled] and [augment] are null where the manifest does not say. */
internal class Batches(
    val size: Int,
    val shuffled: Boolean?,
    val augment: Boolean?,
    override val body: List<Node>,
) : Block

/** The [values] get their first content again. */
internal class ResetNode(val values: List<String>) : Node

/** A program with the same ports that runs instead where the first `zeros[VALUE]` elements of each VALUE are all zero. */
internal class Variant(val program: String, val zeros: Map<String, Int>)

/** [bind] replaces what the ports named in it are joined to; the first of [instead] that may run does. */
internal class RunNode(val program: String, val bind: Map<String, String>, val instead: List<Variant>) : Node

/** Leaves the epochs when [program] is right on at most [accuracyAtMost] percent of up to [samples] samples. */
internal class StopNode(
    val program: String,
    val every: Number,
    val samples: Int,
    val accuracyAtMost: Number,
) : Node
