package io.cluemobile.plan

import io.cluemobile.ClueException
import io.cluemobile.unknown
import kotlin.math.floor

private const val MOST_ITERATIONS = 1e15

/** A plan for [n] samples with these scalars: how many operations its parts have. */
internal class PlanSize(private val n: Int, private val scalars: Map<String, Double>) {
    /** A number as it stands, or the scalar of that name. Throws ClueException for an unknown or infinite one. */
    fun resolve(number: Number): Double {
        val value = when (number) {
            is Number.Fixed -> number.value
            is Number.Scalar -> scalars[number.name] ?: throw unknown("scalar", number.name, scalars.keys)
        }
        if (!value.isFinite()) throw ClueException("a count or limit of the plan is $value: it must be finite")
        return value
    }

    /** [resolve], rounded to the nearest whole number, halves up; never below 0. */
    fun whole(number: Number): Long = floor(resolve(number) + 0.5).coerceIn(0.0, MOST_ITERATIONS).toLong()

    /** How many operations the plan has when no stop is taken. */
    fun total(plan: List<Node>): Long = plan.sumOf { of(it, null) }

    /** How often the body of a loop is carried out; [outer] is the size of the batch around, null outside of any. */
    fun iterations(node: Block, outer: Int?): Long = when (node) {
        is Phase -> 1
        is Epochs -> whole(node.count)
        is Repeat -> whole(node.count)
        is Batches -> if (outer == null) (n + node.size - 1L) / node.size else (outer / node.size).toLong()
    }

    /** The number of operations in a node. */
    fun of(node: Node, outer: Int?): Long {
        if (node !is Block) return 1
        val body = node.body.sumOf { of(it, inner(node, outer)) }
        val count = iterations(node, outer)
        if (count > 0 && body > Long.MAX_VALUE / count) throw ClueException("the plan has more than 2^63 operations")
        return body * count
    }

    /** The size of the batch that the body of [node] stands in. */
    fun inner(node: Block, outer: Int?): Int? = if (node is Batches) node.size else outer

    /**
     * Whether an epoch of an outermost epochs loop ends before operation [cursor]: there a checkpoint goes. Then the number of the
     * operation after all epochs of this loop, else null.
     */
    fun epochEnd(plan: List<Node>, cursor: Long): Long? = operationsLeft(plan, null, cursor)?.let { cursor + it }

    /** When an epoch ends after [done] operations of these nodes: how many its loop has left. */
    private fun operationsLeft(nodes: List<Node>, outer: Int?, done: Long): Long? {
        var left = done
        for (node in nodes) {
            val size = of(node, outer)
            if (left > size) {
                left -= size
                continue
            }
            if (size == 0L || left == 0L || node !is Block) return null
            val body = size / iterations(node, outer)
            if (node is Epochs) return if (left % body == 0L) size - left else null
            return operationsLeft(node.body, inner(node, outer), (left - 1) % body + 1)
        }
        return null
    }
}
