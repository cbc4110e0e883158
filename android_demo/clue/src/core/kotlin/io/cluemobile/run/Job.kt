package io.cluemobile.run

import io.cluemobile.bundle.Program
import io.cluemobile.engine.Floats

/** How a run ends before its plan does: no errors, so without a stack trace. */
internal sealed class Ended(reason: String) : RuntimeException(reason, null, false, false) {
    val reason: String get() = message.orEmpty()
}

/** The user asked for it, between two operations. */
internal class Cancelled : Ended("cancelled")

/** The run stops here for now. */
internal class Paused(reason: String) : Ended(reason)

/** A check of the outcome said no: the old weights stay. */
internal class Refused(reason: String) : Ended(reason)

/** Told after each operation: [done] of [total] operations, the metrics of the latest program. */
internal class StepProgress(
    val phase: String,
    val epoch: Int,
    val done: Long,
    val total: Long,
    val metrics: Map<String, Double>,
)

/**
 * What a request works on and whom the run asks. [samples] are the frozen ones without those held out.
 *
 * [check] is called between operations and between the batches of an accuracy, and may throw [Cancelled] or [Paused]. [enough] is
 * asked after each epoch of the outermost epochs loop and ends that loop with true. [save] is called after each such epoch, and
 * each [saveEvery] runs of programs unless that is 0.
 */
internal class Job(
    val samples: Labelled,
    val seed: Long,
    val scalars: Map<String, Double>,
    val progress: (StepProgress) -> Unit = {},
    val check: () -> Unit = {},
    val enough: () -> Boolean = { false },
    val save: () -> Unit = {},
    val saveEvery: Int = 0,
)

/** What the cost of a run is told to. */
internal interface RunMeter {
    /** Runs by the plan so far, those of earlier parts of the request included. */
    val steps: Long

    /** Something was loaded in so many [seconds], for a phase or (null) for the request. */
    fun loaded(seconds: Double, phase: String? = null)

    /** Carry out [work] and count it to [phase]; [batch] samples where it is a batch, a [step] where a program ran. */
    fun <T> measure(phase: String, batch: Int? = null, step: Boolean = false, work: () -> T): T

    /** A program ran so many [times]. */
    fun worked(program: Program, times: Int = 1)
}

/** How far an earlier part of the request came: every value's content, and what [PlanRun.soFar] gave as JSON. */
internal class Begun(val cursor: Long, val values: Map<String, Floats>, val evidence: Map<String, Any?>)
