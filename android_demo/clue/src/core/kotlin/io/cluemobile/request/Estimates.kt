package io.cluemobile.request

import io.cluemobile.Estimate
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Role
import io.cluemobile.engine.Engine
import io.cluemobile.json.StrictJson
import io.cluemobile.plan.PlanSize
import io.cluemobile.plan.PlanWalk
import io.cluemobile.plan.Run
import io.cluemobile.plan.RunNode
import io.cluemobile.plan.leaves
import io.cluemobile.plan.programsOf
import io.cluemobile.store.Store
import kotlin.math.max

private const val FLOAT_BYTES = 4L
private const val MOST_RECORD_BYTES = 1 shl 20
private val HELD = setOf(Role.STATE, Role.CARRY, Role.CACHE)

/** What a request of [n] samples would take: time and energy by the latest done request of the same engine and threads. */
internal fun estimate(store: Store, engine: Engine, n: Int, scalars: Map<String, Double>): Estimate {
    val bundle = store.bundle
    val weights = bundle.weights.bytes
    val checkpoint = checkpointBytes(bundle, n)
    val known = if (n == 0) null else fromRecords(store, engine, n, steps(bundle, n, scalars))
    return Estimate(
        samples = n,
        operations = if (n == 0) 0 else PlanSize(n, scalars).total(bundle.plan),
        plannedPeakBytes = plannedPeak(bundle, n),
        storageBytes = weights,
        // While a checkpoint replaces another, or the new weights are written, both are on the disk.
        storagePeakBytes = max(2 * checkpoint, weights + checkpoint),
        seconds = known?.seconds,
        timeSource = when {
            n == 0 -> "no samples"
            known == null -> "not known: no request of this engine and thread count has run here"
            else -> "records of request ${known.request} on this device"
        },
        joules = known?.joules,
    )
}

private class Known(val request: Long, val seconds: Double, val joules: Double?)

/** Runs of programs by each phase of the plan, where no stop is taken. */
private fun steps(bundle: ClueBundle, n: Int, scalars: Map<String, Double>): Map<String, Int> =
    PlanWalk(bundle.plan, n, scalars, 0).operations(0).filterIsInstance<Run>().groupingBy { it.place.phase }.eachCount()

private fun fromRecords(store: Store, engine: Engine, n: Int, steps: Map<String, Int>): Known? {
    val sizes = store.requests.all().associate { it.id to it.samples }
    val records = store.requests.records().map { StrictJson.parse(it.toByteArray(), MOST_RECORD_BYTES) as Map<*, *> }
    val here = listOf(engine.name, engine.version, engine.threads.toLong())
    val mine = records.filter { record ->
        val runtime = record["runtime"] as Map<*, *>
        record["status"] == "done" && listOf(runtime["name"], runtime["version"], runtime["threads"]) == here
    }
    val requests = mine.groupBy { (it["request_id"] as Number).toLong() }.toSortedMap(reverseOrder())
    for ((request, rows) in requests) {
        val phases = rows.associateBy { it["phase"] as String }
        val whole = phases["request"] ?: continue
        if (!phases.keys.containsAll(steps.keys)) continue
        fun ratio(phase: String): Double? = when (phase) {
            "verify" -> n.toDouble() / sizes.getValue(request)
            else -> steps[phase]?.let { it / number(phases.getValue(phase), "steps")!! }
        }
        val scaled = phases.mapNotNull { (phase, row) -> ratio(phase)?.let { row to it } }
        val seconds = number(whole, "load_s")!! + number(whole, "save_s")!! +
            scaled.sumOf { (row, ratio) -> ratio * number(row, "wall_s")!! }
        val joules = scaled.map { (row, ratio) -> number(row, "energy_j")?.times(ratio) }
        return Known(request, seconds, if (null in joules) null else joules.sumOf { it!! })
    }
    return null
}

private fun number(record: Map<*, *>, name: String): Double? = (record[name] as Number?)?.toDouble()

private fun elements(shape: List<Int>): Long = shape.fold(1L) { product, side -> product * side }

/** The values that some run of the plan both reads and writes: only these need a second array. */
private fun swapped(bundle: ClueBundle): Set<String> = leaves(bundle.plan).mapNotNull { it.node as? RunNode }.flatMap { node ->
    val program = bundle.programs.getValue(node.program)
    val (read, written) = listOf(program.inputs, program.outputs).map { ports ->
        ports.filter { it.role in HELD }.map { node.bind[it.name] ?: it.binds }.toSet()
    }
    read intersect written
}.toSet()

/** The bytes of the arrays that a request of [n] samples holds and of the largest program. */
internal fun plannedPeak(bundle: ClueBundle, n: Int): Long {
    val swapped = swapped(bundle)
    val values = bundle.values.values.sumOf { value ->
        val times = if (value.role == Role.CACHE) n else if (value.name in swapped) 2 else 1
        FLOAT_BYTES * elements(value.shape) * times
    }
    return values + programsOf(bundle.plan).maxOf { (_, name) -> bundle.programs.getValue(name).peakBytes }
}

/** The bytes of a checkpoint's arrays; its texts are small. */
private fun checkpointBytes(bundle: ClueBundle, n: Int): Long = bundle.values.values.sumOf { value ->
    val size = elements(value.shape) * (if (value.role == Role.CACHE) n else 1)
    if (value.bits) (size + 7) / 8 else FLOAT_BYTES * size
}
