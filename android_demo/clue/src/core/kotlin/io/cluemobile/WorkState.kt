package io.cluemobile

/**
 * What is being carried out of a queue, with all that a screen needs which comes late: it may miss states, and no figure with them.
 *
 * @property running whether it is being carried out
 * @property step the latest that the running request told; null before its first operation and when none runs
 * @property accuracies the forget accuracies of the latest request in percent, the one from before it first
 * @property ended how the latest request ended, or that it paused; null while one runs
 * @property problem what could not be carried out since [running] began, a sentence for the user
 */
public data class WorkState(
    public val running: Boolean = false,
    public val step: Progress.Step? = null,
    public val accuracies: List<Double> = emptyList(),
    public val ended: RequestResult? = null,
    public val problem: String? = null,
)
