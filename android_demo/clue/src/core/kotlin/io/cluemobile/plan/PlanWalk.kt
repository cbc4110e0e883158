package io.cluemobile.plan

import io.cluemobile.random.permutation

/**
 * The plan as a sequence of numbered operations (contract/plan.md): loops unrolled one step at a time, so that memory does not grow
 * with their number.
 */
internal class PlanWalk(private val plan: List<Node>, private val n: Int, scalars: Map<String, Double>, private val seed: Long) {
    private val sizes = PlanSize(n, scalars)
    private var shuffledEpoch = -1
    private var shuffled = IntArray(0)

    /** The operations from number [start] on. */
    fun operations(start: Long): Sequence<Operation> = body(plan, Place(), 0, Within(null, 0), start)

    /**
     * What only the walk needs to know of the loops around: [leaveTo] is the operation after the outermost epochs loop, [reached]
     * how often this place was reached before within the current epoch.
     */
    private class Within(val leaveTo: Long?, val reached: Long)

    private fun body(nodes: List<Node>, place: Place, first: Long, within: Within, start: Long): Sequence<Operation> = sequence {
        var number = first
        for (node in nodes) {
            val size = sizes.of(node, place.positions?.size)
            if (size > 0 && number + size > start) yieldAll(node(node, place, number, within, start, size))
            number += size
        }
    }

    private fun node(node: Node, place: Place, number: Long, within: Within, start: Long, size: Long): Sequence<Operation> =
        when (node) {
            is RunNode -> sequenceOf(Run(number, place, node))
            is ResetNode -> sequenceOf(Reset(number, place, node))
            is StopNode -> {
                val every = sizes.whole(node.every)
                val due = every > 0 && (within.reached + 1) % every == 0L
                val leaveTo = checkNotNull(within.leaveTo) { "a stop stands in an epochs loop: the bundle's checks" }
                sequenceOf(Stop(number, place, node, due, leaveTo))
            }
            is Phase -> body(node.body, place.copy(phase = node.name), number, within, start)
            is Block -> loop(node, place, number, within, start, size)
        }

    private fun loop(loop: Block, place: Place, number: Long, within: Within, start: Long, size: Long): Sequence<Operation> =
        sequence {
            val count = sizes.iterations(loop, place.positions?.size)
            val body = size / count
            for (i in maxOf(0, (start - number) / body) until count) {
                var inside = Within(within.leaveTo, within.reached * count + i)
                val here = when (loop) {
                    is Batches -> batch(loop, place, i.toInt())
                    is Epochs -> {
                        inside = Within(within.leaveTo ?: (number + size), 0)
                        place.copy(epoch = i.toInt())
                    }
                    else -> place.copy(repeat = place.repeat * count + i)
                }
                yieldAll(body(loop.body, here, number + i * body, inside, start))
            }
        }

    private fun batch(batches: Batches, place: Place, i: Int): Place {
        val first = i.toLong() * batches.size
        val outer = place.positions
        if (outer != null) return place.copy(positions = outer.copyOfRange(first.toInt(), first.toInt() + batches.size))
        val order = if (batches.shuffled ?: true) order(place.epoch) else null
        val positions = IntArray(batches.size) { row ->
            val at = ((first + row) % n).toInt()
            order?.get(at) ?: at
        }
        return place.copy(positions = positions, augment = batches.augment ?: false)
    }

    private fun order(epoch: Int): IntArray {
        if (epoch != shuffledEpoch) {
            shuffled = permutation(seed, epoch.toLong(), n)
            shuffledEpoch = epoch
        }
        return shuffled
    }
}
