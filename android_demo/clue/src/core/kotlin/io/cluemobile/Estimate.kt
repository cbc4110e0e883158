package io.cluemobile

/**
 * What a request would take at most, told before it runs.
 *
 * @property operations of the plan, where no stop is taken
 * @property plannedPeakBytes the values and the largest program; the engine's own code is not in it
 * @property storageBytes the new weights
 * @property storagePeakBytes while it runs, checkpoints included
 * @property seconds null where not known
 * @property timeSource from where the time is known, or why not
 * @property joules null where not known
 */
public data class Estimate(
    public val samples: Int,
    public val operations: Long,
    public val plannedPeakBytes: Long,
    public val storageBytes: Long,
    public val storagePeakBytes: Long,
    public val seconds: Double?,
    public val timeSource: String,
    public val joules: Double?,
)
