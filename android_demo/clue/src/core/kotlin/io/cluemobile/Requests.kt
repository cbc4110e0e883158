package io.cluemobile

/** What is to be forgotten, with how. All of it is frozen when the request is made. */
public class ForgetRequest private constructor(
    internal val label: String?,
    internal val samples: List<Long>?,
    internal val seed: Long?,
    internal val scalars: Map<String, Double>,
    internal val options: Options,
) {
    public companion object {
        /**
         * All stored samples of a class, given by its name or by its index in digits.
         *
         * [seed] (0 to 2^53 - 1) is drawn when null; [scalars] replace scalars of the method.
         */
        public fun ofClass(
            label: String,
            seed: Long? = null,
            scalars: Map<String, Double> = emptyMap(),
            options: Options = Options(),
        ): ForgetRequest = ForgetRequest(label, null, seed, scalars, options)

        /** Chosen samples by their ids. */
        public fun ofSamples(
            samples: List<Long>,
            seed: Long? = null,
            scalars: Map<String, Double> = emptyMap(),
            options: Options = Options(),
        ): ForgetRequest = ForgetRequest(null, samples.toList(), seed, scalars, options)
    }
}

/** The states of a request, as docs/runtime-contract.md draws them. */
public enum class Status {
    QUEUED, RUNNING, VERIFYING, PAUSED, DONE, FAILED, CANCELLED;

    /** The word of the database. */
    public val word: String get() = name.lowercase()
}

/**
 * A request of the store.
 *
 * [kind] is "class" or "samples"; [label] and [className] are null for a set of samples; times are UTC, ISO 8601.
 * [evidence] is what the run showed: metrics, accuracies in percent, the verification's figures.
 */
public data class RequestRow(
    public val id: Long,
    public val kind: String,
    public val label: Int?,
    public val className: String?,
    public val status: Status,
    public val seed: Long,
    public val scalars: Map<String, Double>,
    public val options: Options,
    public val samples: Int,
    public val retryOf: Long?,
    public val baseGeneration: Long?,
    public val reason: String?,
    public val evidence: Map<String, Any?>,
    public val created: String,
    public val started: String?,
    public val finished: String?,
    public val rolledBack: String?,
    public val sealBegan: String?,
    public val sealed: String?,
) {
    /** What it forgets, in words. */
    public val about: String get() = className ?: "$samples samples"
}

/** What a running request tells. */
public sealed interface Progress {
    /** The request's id. */
    public val request: Long

    /** An operation is over: [done] of [total]; [metrics] of the latest program (energy, kl, loss ...). */
    public data class Step(
        override val request: Long,
        public val phase: String,
        public val epoch: Int,
        public val done: Long,
        public val total: Long,
        public val metrics: Map<String, Double>,
    ) : Progress

    /** The accuracy on the samples to be forgotten was measured, in percent, after [epoch] (from 0; null: before the first). */
    public data class ForgetAccuracy(
        override val request: Long,
        public val epoch: Int?,
        public val percent: Double,
    ) : Progress

    /** The last one: how it ended, or that it paused. */
    public data class Ended(public val result: RequestResult) : Progress {
        override val request: Long get() = result.id
    }
}

/**
 * How a request ended, or that it paused.
 *
 * [status] is DONE, FAILED, CANCELLED or PAUSED; [reason] says why (or, when done, what else is to be told). [generation]
 * serves afterwards; [records] are its cost records (of a paused one there are none yet).
 */
public data class RequestResult(
    public val id: Long,
    public val status: Status,
    public val reason: String?,
    public val seed: Long,
    public val evidence: Map<String, Any?>,
    public val generation: Long,
    public val records: List<CostRecord>,
)
