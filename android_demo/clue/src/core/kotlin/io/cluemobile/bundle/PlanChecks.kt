package io.cluemobile.bundle

import io.cluemobile.plan.Batches
import io.cluemobile.plan.Block
import io.cluemobile.plan.Epochs
import io.cluemobile.plan.Node
import io.cluemobile.plan.Number
import io.cluemobile.plan.Phase
import io.cluemobile.plan.Repeat
import io.cluemobile.plan.ResetNode
import io.cluemobile.plan.RunNode
import io.cluemobile.plan.StopNode
import io.cluemobile.plan.Variant

private val RESERVED_PHASES = setOf("request", "verify")
private val BATCH_ROLES = setOf(Role.BATCH, Role.CACHE, Role.RANDOM)

/** The loops that enclose a node: the outermost batches, the size of the innermost (0: none), whether epochs are among them. */
private class Around(val batches: Batches? = null, val size: Int = 0, val epochs: Boolean = false)

/** Throws BundleException where a node of the plan names what there is not, or stands where it cannot. */
internal fun checkPlan(bundle: ClueBundle): Unit = bundle.plan.forEach { checkNode(bundle, it, Around()) }

private fun checkNode(bundle: ClueBundle, node: Node, around: Around) {
    when (node) {
        is Block -> {
            val inside = inside(bundle, node, around)
            node.body.forEach { checkNode(bundle, it, inside) }
        }
        is ResetNode -> node.values.forEach { if (it !in bundle.values) bundle.fail("the plan resets '$it', which is no value") }
        is RunNode -> checkRun(bundle, node, around)
        is StopNode -> {
            checkClassifier(bundle, node.program)
            checkNumber(bundle, node.every)
            checkNumber(bundle, node.accuracyAtMost)
            if (!around.epochs) bundle.fail("the plan has a stop outside of any epochs loop")
        }
    }
}

private fun inside(bundle: ClueBundle, block: Block, around: Around): Around = when (block) {
    is Phase -> {
        if (block.name in RESERVED_PHASES) {
            bundle.fail("a phase of the plan is called ${block.name}, a name of the runtime's own records")
        }
        around
    }
    is Epochs -> {
        checkNumber(bundle, block.count)
        Around(around.batches, around.size, epochs = true)
    }
    is Repeat -> {
        checkNumber(bundle, block.count)
        around
    }
    is Batches -> {
        val outer = around.batches
        if (outer != null) checkInner(bundle, block, outer, around.size)
        Around(outer ?: block, block.size, around.epochs)
    }
}

private fun checkInner(bundle: ClueBundle, inner: Batches, outer: Batches, size: Int) {
    val fits = size % inner.size == 0 &&
        (inner.shuffled == null || inner.shuffled == (outer.shuffled ?: true)) &&
        (inner.augment == null || inner.augment == (outer.augment ?: false))
    if (!fits) bundle.fail("the batches of ${inner.size} inside batches of $size do not fit them")
}

private fun checkNumber(bundle: ClueBundle, number: Number) {
    if (number is Number.Scalar && number.name !in bundle.scalars) {
        bundle.fail("the plan names the scalar '${number.name}', which the method does not have")
    }
}

private fun checkRun(bundle: ClueBundle, node: RunNode, around: Around) {
    val program = bundle.programs[node.program] ?: bundle.fail("the plan runs '${node.program}', which is no program")
    val ports = (program.inputs + program.outputs).associateBy { it.name }
    for ((name, binds) in node.bind) {
        val port = ports[name] ?: bundle.fail("the plan binds '$name', which is no port of program ${program.name}")
        checkPort(bundle, program, port, binds)
    }
    node.instead.forEach { checkVariant(bundle, program, it) }
    val written = program.outputs.filter { it.role in HELD_ROLES }.map { node.bind[it.name] ?: it.binds }
    if (written.toSet().size != written.size) bundle.fail("program ${program.name} writes one value twice")
    if (ports.values.any { it.role in BATCH_ROLES } && around.size != program.batch) {
        val place = if (around.size > 0) "in batches of ${around.size}" else "outside of any batches"
        bundle.fail("program ${program.name} takes batches of ${program.batch} but the plan runs it $place")
    }
}

private fun checkVariant(bundle: ClueBundle, program: Program, variant: Variant) {
    val other = bundle.programs[variant.program] ?: bundle.fail("the plan runs '${variant.program}', which is no program")
    if (other.batch != program.batch || other.inputs != program.inputs || other.outputs != program.outputs) {
        bundle.fail("program ${other.name} has other ports than ${program.name}, which it stands in for")
    }
    if (!other.files.keys.containsAll(program.files.keys)) {
        bundle.fail("program ${other.name} lacks a runtime that ${program.name} has")
    }
    for ((name, count) in variant.zeros) {
        val value = bundle.values[name]
        if (value == null || value.role == Role.CACHE || count > elements(value.shape)) {
            bundle.fail("program ${other.name} asks for $count zeros of '$name', which has not so many")
        }
    }
}
