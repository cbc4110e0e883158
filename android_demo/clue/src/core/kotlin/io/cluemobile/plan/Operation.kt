package io.cluemobile.plan

/**
 * Where in the plan an operation stands. [repeat] counts the iterations of the `repeat` loops around, [positions] are the samples
 * of the batch around (null: none), [augment] whether their pixels are cropped and flipped.
 */
internal data class Place(
    val phase: String = "",
    val epoch: Int = 0,
    val repeat: Long = 0,
    val positions: IntArray? = null,
    val augment: Boolean = false,
)

/** A step of a request that is carried out whole or not at all; [number] counts them from 0. */
internal sealed interface Operation {
    val number: Long
    val place: Place
}

internal class Run(override val number: Long, override val place: Place, val node: RunNode) : Operation

internal class Reset(override val number: Long, override val place: Place, val node: ResetNode) : Operation

/** [due]: the accuracy is to be measured; when it is low enough the next operation is [leaveTo]. */
internal class Stop(
    override val number: Long,
    override val place: Place,
    val node: StopNode,
    val due: Boolean,
    val leaveTo: Long,
) : Operation

/** A reset, run or stop as it stands in the plan, with the phase that it stands in. */
internal class Leaf(val phase: String, val node: Node)

/** Every node of the plan that has no others inside, once, in order. */
internal fun leaves(nodes: List<Node>, phase: String = ""): List<Leaf> = nodes.flatMap { node ->
    when (node) {
        is Block -> leaves(node.body, if (node is Phase) node.name else phase)
        else -> listOf(Leaf(phase, node))
    }
}

/**
 * Phase and program of every run and stop in order, then predict, which verifies; no variants, which load when they are chosen and
 * need no more than the program that they stand in for.
 */
internal fun programsOf(plan: List<Node>): List<Pair<String, String>> = leaves(plan).mapNotNull { leaf ->
    when (val node = leaf.node) {
        is RunNode -> leaf.phase to node.program
        is StopNode -> leaf.phase to node.program
        else -> null
    }
} + ("verify" to "predict")
