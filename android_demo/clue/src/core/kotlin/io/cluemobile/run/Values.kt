package io.cluemobile.run

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.HELD_ROLES
import io.cluemobile.bundle.Init
import io.cluemobile.bundle.Program
import io.cluemobile.bundle.Role
import io.cluemobile.engine.Floats
import io.cluemobile.plan.RunNode
import io.cluemobile.plan.leaves
import io.cluemobile.random.drawStream

/** The values that some run of the plan both reads and writes: only these need a second array. */
internal fun swappedValues(bundle: ClueBundle): Set<String> = leaves(bundle.plan)
    .flatMap { leaf -> (leaf.node as? RunNode)?.let { readAndWritten(bundle.programs.getValue(it.program), it.bind) }.orEmpty() }
    .filter { bundle.values.getValue(it).role != Role.CACHE }
    .toSet()

private fun readAndWritten(program: Program, bind: Map<String, String>): Set<String> {
    val (read, written) = listOf(program.inputs, program.outputs).map { ports ->
        ports.filter { it.role in HELD_ROLES }.map { bind[it.name] ?: it.binds }.toSet()
    }
    return read intersect written
}

/**
 * The current content of every value, for [n] samples; a cache is [n, *shape] (contract/plan.md, "Values"). Throws ClueException
 * when a file that a value starts from does not have it.
 */
internal class Values(private val bundle: ClueBundle, private val served: WeightsFile, n: Int, private val seed: Long) {
    private val current = LinkedHashMap<String, Floats>()
    private val spare = HashMap<String, Floats>()

    init {
        val swapped = swappedValues(bundle)
        for (value in bundle.values.values) {
            val shape = if (value.role == Role.CACHE) listOf(n) + value.shape else value.shape
            current[value.name] = Floats.zeros(shape)
            if (value.name in swapped) spare[value.name] = Floats.zeros(shape)
            reset(value.name, epoch = 0, repeat = 0)
        }
    }

    /** The array with the content of a value; it stays the value's own. */
    fun current(name: String): Floats = current.getValue(name)

    /** Where a program is to write the new content, before [written]. */
    fun target(name: String): Floats = spare[name] ?: current(name)

    /** A program has filled the target: it is the content now. */
    fun written(name: String) {
        val filled = spare[name] ?: return
        spare[name] = current(name)
        current[name] = filled
    }

    /** Give a value its first content again, as it is drawn in this [epoch] and [repeat]. */
    fun reset(name: String, epoch: Int, repeat: Long) {
        val array = current(name)
        when (val init = bundle.values.getValue(name).init) {
            is Init.Zeros -> array.fill(0f)
            is Init.Weights -> served.readInto(init.key, array)
            is Init.Copy -> array.copyFrom(current(init.value))
            is Init.Random -> drawStream(bundle.randoms.getValue(init.stream), seed, epoch, intArrayOf(0), repeat, array)
            is Init.File -> {
                val file = WeightsFile(bundle.file(init.file))
                if (file.shape(init.key) != array.shape) bundle.fail("${init.file} has no array ${init.key} of shape ${array.shape}")
                file.readInto(init.key, array)
            }
        }
    }

    /** Whether the first [count] elements of a value are all zero; read up to one that is not. */
    fun beginsWithZeros(name: String, count: Int): Boolean {
        val array = current(name)
        return (0 until count).all { array[it] == 0f }
    }

    /** The current content of every value by its name: what a checkpoint stores. */
    fun all(): Map<String, Floats> = current.toMap()

    /** Give every value the content that it had in a checkpoint, in place. */
    fun restore(arrays: Map<String, Floats>) {
        for ((name, array) in current) array.copyFrom(arrays.getValue(name))
    }

    /** The arrays of role state by their key in the weights file: the new weights. */
    fun state(): Map<String, Floats> = bundle.values.values
        .filter { it.role == Role.STATE }
        .associate { checkNotNull(it.weightsKey) to current(it.name) }
}
