package io.cluemobile.run

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Role
import io.cluemobile.engine.Floats
import io.cluemobile.random.Streams
import io.cluemobile.random.permutation
import java.nio.ByteOrder
import java.util.Locale

/**
 * What a request's new weights are held to: [accuracyAtMost] in percent, the classes that are or are being [forgotten], and the
 * samples that were [heldOut] of the plan.
 */
internal class Checks(val accuracyAtMost: Double, val forgotten: Set<Int>, val heldOut: Labelled)

/** How many of [n] samples the plan has when the share [holdout] is held out. */
internal fun planned(n: Int, holdout: Double): Int = n - (holdout * n).toInt()

/** The samples of the plan, and those that are held out of it; each in their order. */
internal fun split(samples: Labelled, holdout: Double, seed: Long): Pair<Labelled, Labelled> {
    val n = samples.images.count
    val count = planned(n, holdout)
    if (count == n) return samples to samples.at(IntArray(0))
    val order = permutation(seed, 0, n, Streams.HOLDOUT)
    return samples.at(order.copyOf(count).sortedArray()) to samples.at(order.copyOfRange(count, n).sortedArray())
}

/**
 * Check the weights that [run] has arrived at against the [old] ones (docs/runtime-contract.md, "Verify before swap").
 *
 * Fills in the [evidence] (JSON): forget_accuracy_after, accuracy_at_most, held_out, guard, collapse. Throws [Refused] with all that
 * does not hold.
 */
internal fun verify(run: PlanRun, old: WeightsFile, checks: Checks, evidence: MutableMap<String, Any?>): Unit =
    Verification(run, old, checks).check(evidence)

private class Verification(private val run: PlanRun, old: WeightsFile, private val checks: Checks) {
    private val bundle = run.bundle
    private val wrong = mutableListOf<String>()
    private val before: Map<String, Floats> = oldState(run, old)

    init {
        checkState(before, bundle, run.values)
    }

    fun check(evidence: MutableMap<String, Any?>) {
        val limit = checks.accuracyAtMost
        val after = run.accuracy()
        evidence["forget_accuracy_after"] = after
        evidence["accuracy_at_most"] = limit
        if (after > limit) wrong += "the forget accuracy is ${percent(after)}, it had to come down to ${percent(limit)}"
        evidence["held_out"] = heldOut(limit)
        val guard = guard()
        evidence["guard"] = guard
        evidence["collapse"] = if (guard == null) collapse() else null
        if (wrong.isNotEmpty()) throw Refused(wrong.joinToString("; "))
    }

    private fun heldOut(limit: Double): Map<String, Any?>? {
        val held = checks.heldOut
        if (held.images.count == 0) return null
        val (old, new) = accuracies(held)
        if (new > limit) {
            wrong += "the accuracy on the ${held.images.count} samples held out is ${percent(new)}, " +
                "it had to come down to ${percent(limit)}"
        }
        return linkedMapOf("samples" to held.images.count.toLong(), "accuracy_before" to old, "accuracy_after" to new)
    }

    private fun guard(): Map<String, Any?>? {
        val most = bundle.guardDropAtMost ?: return null
        val all = readGuard(bundle) ?: return null
        val others = all.at(all.labels.indices.filter { all.labels[it] !in checks.forgotten }.toIntArray())
        val count = others.images.count
        if (count == 0) return null
        val (old, new) = accuracies(others)
        if (old - new > most) {
            wrong += "the accuracy on the other classes fell from ${percent(old)} to ${percent(new)} on the $count guard images, " +
                "by more than ${oneDigit(most)} points"
        }
        return linkedMapOf("images" to count.toLong(), "accuracy_before" to old, "accuracy_after" to new, "drop_at_most" to most)
    }

    private fun collapse(): Map<String, Any?>? {
        val limits = bundle.collapse ?: return null
        if (checks.forgotten.size >= bundle.classes.size) return null
        val made = makeProbes(run.job.samples.images, run.job.seed, limits.probes)
        val every = IntArray(made.count) { it }
        val found = compareProbes(run.logits(made, every, before), run.logits(made, every), checks.forgotten)
        if (found.kept < limits.keptAtLeast) {
            wrong += "the model collapsed: only ${percent(found.kept)} of ${found.probes} made-up images are still taken for the " +
                "same class, it had to be ${percent(limits.keptAtLeast)}"
        }
        // A model that took all of them for one class before says nothing by it.
        if (found.largestShareAfter > limits.largestShareAtMost && limits.largestShareAtMost >= found.largestShareBefore) {
            wrong += "the model collapsed: ${percent(found.largestShareAfter)} of ${found.probes} made-up images fall on one class, " +
                "it had to be at most ${percent(limits.largestShareAtMost)}"
        }
        return linkedMapOf(
            "probes" to found.probes.toLong(),
            "kept" to found.kept,
            "largest_share_before" to found.largestShareBefore,
            "largest_share_after" to found.largestShareAfter,
            "kept_at_least" to limits.keptAtLeast,
            "largest_share_at_most" to limits.largestShareAtMost,
        )
    }

    /** Percent given their label by the old and by the new weights. */
    private fun accuracies(given: Labelled): Pair<Double, Double> {
        val every = IntArray(given.images.count) { it }
        val old = run.logits(given.images, every, before)
        val new = run.logits(given.images, every)
        return accuracy(old, given.labels) to accuracy(new, given.labels)
    }
}

private fun accuracy(logits: Array<FloatArray>, labels: IntArray): Double =
    100.0 * labels.indices.count { logits[it].best() == labels[it] } / labels.size

/** Throws [Refused] unless every array of the state is finite and at least one differs. */
private fun checkState(before: Map<String, Floats>, bundle: ClueBundle, values: Values) {
    var changed = false
    for ((name, old) in before) {
        val new = values.current(name)
        for (i in 0 until new.size) {
            if (!new[i].isFinite()) throw Refused("the new ${bundle.values.getValue(name).weightsKey} are not finite")
            changed = changed || new[i] != old[i]
        }
    }
    if (!changed) throw Refused("the weights did not change")
}

/**
 * The old weights by the names of their values. They go where a step would write next: those arrays are free now, so this takes no
 * memory but for values that no step writes.
 */
private fun oldState(run: PlanRun, old: WeightsFile): Map<String, Floats> =
    run.bundle.values.values.filter { it.role == Role.STATE }.associate { value ->
        val free = run.values.target(value.name)
        val array = if (free === run.values.current(value.name)) Floats.zeros(value.shape) else free
        old.readInto(checkNotNull(value.weightsKey), array)
        value.name to array
    }

/** The guard images, null for a bundle without. Throws BundleException when their file does not fit the bundle. */
internal fun readGuard(bundle: ClueBundle): Labelled? {
    val name = bundle.guard ?: return null
    val file = WeightsFile(bundle.file(name))
    val images = file.bytes("images", "U8")
    val raw = file.bytes("labels", "I64").order(ByteOrder.LITTLE_ENDIAN).asLongBuffer()
    val (channels, height, width) = bundle.input
    val shape = file.shape("images").orEmpty()
    val count = raw.capacity()
    if (count == 0 || file.shape("labels") != listOf(count) || shape != listOf(count, height, width, channels)) {
        bundle.fail("$name has images $shape with labels ${file.shape("labels")}")
    }
    val labels = LongArray(count).also { raw.get(it) }
    if (labels.any { it !in bundle.classes.indices }) bundle.fail("$name has labels from ${labels.min()} to ${labels.max()}")
    return Labelled(ArrayImages(count, height, width, channels, images.array()), IntArray(count) { labels[it].toInt() })
}

private fun percent(value: Double): String = oneDigit(value) + " %"

private fun oneDigit(value: Double): String = String.format(Locale.ROOT, "%.1f", value)
