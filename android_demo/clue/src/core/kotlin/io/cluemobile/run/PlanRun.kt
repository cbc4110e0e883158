package io.cluemobile.run

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Program
import io.cluemobile.engine.Engine
import io.cluemobile.engine.Floats
import io.cluemobile.engine.Session
import io.cluemobile.engine.load
import io.cluemobile.json.JsonObject
import io.cluemobile.plan.Operation
import io.cluemobile.plan.PlanSize
import io.cluemobile.plan.PlanWalk
import io.cluemobile.plan.Reset
import io.cluemobile.plan.Run
import io.cluemobile.plan.RunNode
import io.cluemobile.plan.Stop
import io.cluemobile.plan.programsOf

/**
 * Carries out the plan of one request in memory: programs, values, batches, random numbers; no store.
 *
 * With [begun] it goes on where that ended. Throws ClueException when a program cannot be loaded or fails. Close it: sessions hold
 * memory that no collector sees. For one thread.
 */
internal class PlanRun(
    val bundle: ClueBundle,
    private val engine: Engine,
    served: WeightsFile,
    val job: Job,
    private val meter: RunMeter,
    begun: Begun? = null,
) : AutoCloseable {
    /** The number of the next operation: what a checkpoint stores. */
    var cursor: Long = begun?.cursor ?: 0
        private set
    val evidence: Evidence = Evidence()
    val values: Values
    private val sizes = PlanSize(job.samples.images.count, job.scalars)
    private val sessions = HashMap<String, Session>()
    private val classifiers = HashMap<String, BatchClassifier>()
    private val ports: Ports

    init {
        val start = System.nanoTime()
        values = Values(bundle, served, job.samples.images.count, job.seed)
        begun?.let {
            evidence.restore(it.evidence)
            values.restore(it.values)
        }
        ports = Ports(bundle, job, values)
        meter.loaded(secondsSince(start))
        try {
            for ((phase, name) in programsOf(bundle.plan)) if (name !in sessions) loadFor(phase, name)
        } catch (error: Throwable) {
            close()
            throw error
        }
    }

    private fun loadFor(phase: String, name: String) {
        val start = System.nanoTime()
        session(name)
        meter.loaded(secondsSince(start), phase)
    }

    /** The program's session, loaded when it is first asked for: of the variants of a step most never are. */
    private fun session(name: String): Session = sessions.getOrPut(name) { engine.load(bundle, bundle.programs.getValue(name)) }

    /** The evidence so far as JSON, with the sums that its unfinished means are made of: what a checkpoint stores. */
    fun soFar(): JsonObject = evidence.jsonWithSums()

    /**
     * Carry out the plan from the cursor on. Throws [Cancelled], [Paused] (the cursor says where to go on), [Refused] (a metric is
     * not finite) or ClueException.
     */
    fun run() {
        val total = sizes.total(bundle.plan)
        while (cursor < total) {
            val walk = PlanWalk(bundle.plan, job.samples.images.count, job.scalars, job.seed)
            untilJump(walk.operations(cursor), total)
        }
    }

    /** Carry out operations until one leads elsewhere than to the next. */
    private fun untilJump(operations: Sequence<Operation>, total: Long) {
        for (operation in operations) {
            job.check()
            cursor = carryOut(operation, total)
            val leaveTo = sizes.epochEnd(bundle.plan, cursor)
            if (leaveTo != null && job.enough()) {
                evidence.stoppedEarly = evidence.stoppedEarly || cursor < leaveTo
                cursor = leaveTo
            }
            if (leaveTo != null || savesAfter(operation)) job.save()
            if (cursor != operation.number + 1) return
        }
    }

    private fun savesAfter(operation: Operation): Boolean =
        job.saveEvery > 0 && operation is Run && meter.steps % job.saveEvery == 0L

    /** Carry out one operation; returns the number of the next. */
    private fun carryOut(operation: Operation, total: Long): Long {
        val place = operation.place
        var metrics = emptyMap<String, Double>()
        var leaveTo: Long? = null
        evidence.epochsRun = maxOf(evidence.epochsRun, place.epoch + 1)
        meter.measure(place.phase, place.positions?.size, step = operation is Run) {
            when (operation) {
                is Run -> metrics = runOnce(operation)
                is Reset -> operation.node.values.forEach { values.reset(it, place.epoch, place.repeat) }
                is Stop -> if (operation.due && lowEnough(operation)) leaveTo = operation.leaveTo
            }
        }
        leaveTo?.let {
            evidence.stoppedEarly = true
            return it
        }
        evidence.log(place.phase, place.epoch, metrics)
        job.progress(StepProgress(place.phase, place.epoch, operation.number + 1, total, metrics))
        return operation.number + 1
    }

    /** The program that a run node stands for now: the first variant that the values allow, else its own. */
    private fun chosen(node: RunNode): Program {
        val variant = node.instead.firstOrNull { each -> each.zeros.all { (name, count) -> values.beginsWithZeros(name, count) } }
        return bundle.programs.getValue(variant?.program ?: node.program)
    }

    /** Make the inputs of one run, run it, take over its outputs; returns the metrics. */
    private fun runOnce(run: Run): Map<String, Double> {
        val program = chosen(run.node)
        val inputs = program.inputs.associate { it.name to ports.input(it, run.node, run.place) }
        val outputs = program.outputs.associate { it.name to ports.output(it, run.node) }
        session(program.name).run(inputs, outputs)
        meter.worked(program)
        return ports.takeOver(program, run.node, run.place, outputs)
    }

    private fun lowEnough(stop: Stop): Boolean {
        val accuracy = accuracy(stop.node.program, stop.node.samples)
        evidence.stops += StopMeasured(stop.number, stop.place.epoch, accuracy)
        return accuracy <= sizes.resolve(stop.node.accuracyAtMost)
    }

    /** Percent of the samples that [program] gives their label, over at most [most] of them. */
    fun accuracy(program: String = "predict", most: Int? = null): Double {
        val n = job.samples.images.count
        val count = minOf(most ?: n, n)
        val positions = IntArray(count) { (it.toLong() * n / count).toInt() }
        val logits = logits(job.samples.images, positions, program = program)
        val correct = positions.indices.count { logits[it].best() == job.samples.labels[positions[it]] }
        return 100.0 * correct / count
    }

    /**
     * Logits [M, K] of the images at [positions], by the current weights or by [state] (arrays by the names of values). Throws
     * [Refused] when they are not finite.
     */
    fun logits(
        images: Images,
        positions: IntArray,
        state: Map<String, Floats>? = null,
        program: String = "predict",
    ): Array<FloatArray> {
        val ran = bundle.programs.getValue(program)
        val classifier = classifiers.getOrPut(program) { BatchClassifier(ran, session(program)) }
        val logits = classifier.logits(state?.let { it::getValue } ?: values::current, images, positions, job.check)
        meter.worked(ran, (positions.size + ran.batch - 1) / ran.batch)
        if (!logits.all { row -> row.all { it.isFinite() } }) throw Refused("the logits of $program are not finite")
        return logits
    }

    override fun close() {
        sessions.values.forEach { it.close() }
        sessions.clear()
    }

    private fun secondsSince(start: Long): Double = (System.nanoTime() - start) / 1e9
}
