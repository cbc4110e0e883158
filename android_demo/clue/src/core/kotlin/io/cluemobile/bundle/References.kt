package io.cluemobile.bundle

import io.cluemobile.json.JsonObject
import io.cluemobile.json.int
import io.cluemobile.json.obj
import io.cluemobile.json.objects
import io.cluemobile.json.shape
import io.cluemobile.json.text
import io.cluemobile.json.whole
import io.cluemobile.plan.RunNode
import io.cluemobile.plan.leaves

/*
 * Checks that a manifest's names, shapes and loops fit each other: no request is to fail on them half way.
 */

private const val MOST_ELEMENTS = 1L shl 31
private const val MOST_SIDE = 65_535
private val INPUT_ROLES = setOf(Role.STATE, Role.CARRY, Role.CACHE, Role.BATCH, Role.SCALAR, Role.RANDOM)
private val OUTPUT_ROLES = setOf(Role.STATE, Role.CARRY, Role.CACHE, Role.RESULT, Role.METRIC)

/** Roles whose arrays the runtime holds. */
internal val HELD_ROLES = setOf(Role.STATE, Role.CARRY, Role.CACHE)

/** How many elements an array of this shape has; more than any array may have stays more than that. */
internal fun elements(shape: List<Int>): Long = shape.fold(1L) { product, side -> minOf(product * side, Int.MAX_VALUE.toLong() * 4) }

/** Throws BundleException for the first contradiction in the manifest; [raw] is its JSON. */
internal fun checkReferences(bundle: ClueBundle, raw: JsonObject) {
    checkEntries(bundle, raw)
    checkSizes(bundle)
    checkValues(bundle)
    bundle.randoms.values.forEach { checkRandom(bundle, it) }
    for (name in listOf("predict", "predict_1")) checkClassifier(bundle, name)
    bundle.programs.values.forEach { checkProgram(bundle, it) }
    if (bundle.programs.getValue("predict_1").batch != 1) bundle.fail("program predict_1 must have batch 1")
    checkPlan(bundle)
    if (raw.whole("schema_version") < 2 && leaves(bundle.plan).any { it.node is RunNode && it.node.instead.isNotEmpty() }) {
        bundle.fail("the plan has programs to run instead, which a manifest of version 1 cannot have")
    }
}

/** Each file named anywhere is in the list of files, with the same hash. */
private fun checkEntries(bundle: ClueBundle, raw: JsonObject) {
    val programs = bundle.programs.values
    val named = listOf(bundle.weights.file to bundle.weights.sha256) +
        programs.flatMap { each -> each.files.values.map { it.file to it.sha256 } } +
        programs.map { it.golden.file to it.golden.sha256 }
    for ((file, sha256) in named) {
        bundle.file(file)
        if (bundle.sha256Of(file) != sha256) bundle.fail("$file has two different SHA-256 in the manifest")
    }
    for (entry in raw.objects("state")) {
        val value = bundle.values[entry.text("value")]
        if (value == null || value.role != Role.STATE) {
            bundle.fail("state entry ${entry.text("name")} lies in ${entry.text("value")}, which is no state value")
        }
        if (entry.whole("offset") + elements(entry.shape("shape")) > elements(value.shape)) {
            bundle.fail("state entry ${entry.text("name")} ends behind ${value.name}")
        }
    }
}

/** No array is larger than any device could hold. */
private fun checkSizes(bundle: ClueBundle) {
    val ports = bundle.programs.values.flatMap { it.inputs + it.outputs }.map { it.name to it.shape }
    val held = bundle.values.values.map { it.name to it.shape } + bundle.randoms.values.map { it.name to it.shape }
    for ((name, shape) in held + ports) {
        if (elements(shape) > MOST_ELEMENTS) bundle.fail("$name of shape $shape has more than $MOST_ELEMENTS elements")
    }
    if (maxOf(bundle.input.channels, bundle.input.height, bundle.input.width, bundle.batch) > MOST_SIDE) {
        bundle.fail("sides and batches are at most $MOST_SIDE")
    }
}

private fun checkValues(bundle: ClueBundle) {
    val earlier = HashMap<String, List<Int>>()
    val keys = HashSet<String>()
    for (value in bundle.values.values) {
        val init = value.init
        if (value.role == Role.STATE) {
            if (init !is Init.Weights) bundle.fail("state value ${value.name} does not start from the weights")
            if (!keys.add(init.key)) bundle.fail("two state values start from ${init.key}")
        }
        if (value.role == Role.CACHE && init !is Init.Zeros) bundle.fail("cache ${value.name} does not start from zeros")
        when {
            init is Init.File -> bundle.file(init.file)
            init is Init.Copy && earlier[init.value] != value.shape ->
                bundle.fail("value ${value.name} starts from ${init.value}, which is no earlier value of its shape")
            init is Init.Random && bundle.randoms[init.stream]?.shape != value.shape ->
                bundle.fail("value ${value.name} starts from ${init.stream}, which is no random stream of its shape")
        }
        if (value.role != Role.CACHE) earlier[value.name] = value.shape
    }
    if (keys.isEmpty()) bundle.fail("no value has the role state")
}

private fun checkRandom(bundle: ClueBundle, random: RandomStream) {
    if (random.distribution == "uniform" && !(random.low <= random.high)) {
        bundle.fail("random stream ${random.name} has low above high")
    }
    if (random.distribution == "onehot" && random.shape.lastOrNull() != random.classes) {
        bundle.fail("random stream ${random.name}: the last axis of its shape must be its classes")
    }
}

private fun checkProgram(bundle: ClueBundle, program: Program) {
    val names = (program.inputs + program.outputs).map { it.name }
    if (names.toSet().size != names.size) bundle.fail("program ${program.name} has two ports of one name")
    for ((ports, roles) in listOf(program.inputs to INPUT_ROLES, program.outputs to OUTPUT_ROLES)) {
        for (port in ports) {
            if (port.role !in roles) {
                bundle.fail("program ${program.name}, port ${port.name}: role ${port.role.name.lowercase()} is not possible here")
            }
            checkPort(bundle, program, port, port.binds)
        }
    }
    val golden = program.golden
    if (golden.inputs.keys != program.inputs.map { it.name }.toSet()) {
        bundle.fail("program ${program.name}: golden inputs are not its inputs")
    }
    for (port in program.inputs) {
        val draws = golden.inputs.getValue(port.name)
        val length = draws.sumOf { it.length.toLong() }
        if (length != elements(port.shape)) bundle.fail("program ${program.name}: golden input ${port.name} has $length elements")
        if (draws.any { it.distribution == "cycle" && it.a < 1 }) {
            bundle.fail("program ${program.name}: golden input ${port.name} has rows without a column")
        }
    }
    if (!program.outputs.map { it.name }.containsAll(golden.outputs.keys)) {
        bundle.fail("program ${program.name}: golden outputs are not its outputs")
    }
}

/** The port's shape is that of what it is joined to. */
internal fun checkPort(bundle: ClueBundle, program: Program, port: Port, binds: String) {
    val batch = listOf(program.batch)
    val expected: List<Int>? = when (port.role) {
        in HELD_ROLES -> bundle.values[binds]?.takeIf { it.role == port.role }
            ?.let { if (it.role == Role.CACHE) batch + it.shape else it.shape }
        Role.BATCH -> when (binds) {
            "x" -> batch + listOf(bundle.input.channels, bundle.input.height, bundle.input.width)
            "onehot" -> batch + bundle.classes.size
            else -> null
        }
        Role.RANDOM -> bundle.randoms[binds]?.let { batch + it.shape }
        Role.SCALAR -> if (binds in bundle.scalars) emptyList() else null
        Role.METRIC -> emptyList()
        else -> port.shape
    }
    val role = port.role.name.lowercase()
    val where = "program ${program.name}, port ${port.name}"
    if (expected == null) bundle.fail("$where: there is no $role '$binds'")
    if (port.shape != expected) bundle.fail("$where: shape ${port.shape} does not fit ${binds.ifEmpty { role }} $expected")
}

/** The program takes state and x and gives logits [B, K]. */
internal fun checkClassifier(bundle: ClueBundle, name: String) {
    val program = bundle.programs[name] ?: bundle.fail("there is no program $name")
    val inputsFit = program.inputs.filter { it.role != Role.STATE }.map { it.binds } == listOf("x")
    val logits = program.outputs.singleOrNull()
    if (!inputsFit || logits == null || logits.name != "logits" || logits.role != Role.RESULT) {
        bundle.fail("program $name must take state and x and give logits")
    }
    if (logits.shape != listOf(program.batch, bundle.classes.size)) {
        bundle.fail("program $name: logits must be [${program.batch}, ${bundle.classes.size}]")
    }
}
