package io.cluemobile

/**
 * The options of a request; null: not given. docs/runtime-contract.md, "Options".
 *
 * Throws [ClueException] for a value out of range.
 *
 * @property accuracyAtMost percent that the forget accuracy must come down to, in place of the bundle's
 * @property maxSeconds seconds that one run may take; then it pauses
 * @property maxJoules joules that one run may take; then it pauses
 * @property maxCelsius above this temperature, in degrees, it pauses (80 when not given)
 * @property checkpointSteps a checkpoint each so many runs of programs, besides those after each epoch
 * @property stopAccuracy after an epoch: at or below this forget accuracy in percent the epochs are over
 * @property stopJoules the same, when the request has used that much energy
 * @property holdout share of a class's samples, 0 to 0.5, that only the checks get
 * @property broughtBack the store made this request because a new bundle has the class again
 */
public data class Options(
    public val accuracyAtMost: Double? = null,
    public val maxSeconds: Double? = null,
    public val maxJoules: Double? = null,
    public val maxCelsius: Double? = null,
    public val checkpointSteps: Long? = null,
    public val stopAccuracy: Double? = null,
    public val stopJoules: Double? = null,
    public val holdout: Double? = null,
    public val broughtBack: Boolean? = null,
) {
    init {
        percent("accuracy_at_most", accuracyAtMost)
        percent("stop_accuracy", stopAccuracy)
        positive("max_seconds", maxSeconds)
        positive("max_joules", maxJoules)
        positive("stop_joules", stopJoules)
        if (maxCelsius != null && !(maxCelsius > 0 && maxCelsius <= MOST_CELSIUS)) {
            throw ClueException("max_celsius is $maxCelsius: it must be from 0 to $MOST_CELSIUS degrees")
        }
        if (checkpointSteps != null && checkpointSteps !in 1 until MOST_STEPS) {
            throw ClueException("checkpoint_steps is $checkpointSteps: it must be a whole number from 1 on")
        }
        if (holdout != null && !(holdout in 0.0..MOST_HOLDOUT)) {
            throw ClueException("holdout is $holdout: it must be from 0 to $MOST_HOLDOUT, a share of the samples")
        }
    }

    /** Above this temperature the request pauses, degrees Celsius. */
    internal val celsiusAtMost: Double get() = maxCelsius ?: PAUSE_CELSIUS

    /** The names of the given options that only a device which measures energy can keep. */
    internal val needEnergy: List<String>
        get() = listOfNotNull("max_joules".takeIf { maxJoules != null }, "stop_joules".takeIf { stopJoules != null })

    /** Those that are given, as they stand in the request's row. */
    internal fun asMap(): Map<String, Any> = buildMap {
        accuracyAtMost?.let { put("accuracy_at_most", it) }
        broughtBack?.let { put(BROUGHT_BACK, it) }
        checkpointSteps?.let { put("checkpoint_steps", it) }
        holdout?.let { put("holdout", it) }
        maxCelsius?.let { put("max_celsius", it) }
        maxJoules?.let { put("max_joules", it) }
        maxSeconds?.let { put("max_seconds", it) }
        stopAccuracy?.let { put("stop_accuracy", it) }
        stopJoules?.let { put("stop_joules", it) }
    }

    internal companion object {
        const val BROUGHT_BACK: String = "brought_back"
        private const val MOST_CELSIUS = 120.0
        private const val PAUSE_CELSIUS = 80.0
        private const val MOST_STEPS = 1L shl 53
        private const val MOST_HOLDOUT = 0.5
        private val KNOWN = listOf(
            "accuracy_at_most", BROUGHT_BACK, "checkpoint_steps", "holdout", "max_celsius", "max_joules", "max_seconds",
            "stop_accuracy", "stop_joules",
        )

        /** The options of a request's row. Throws [ClueException] for an unknown name or a value out of range. */
        fun of(given: Map<String, Any?>): Options {
            given.keys.firstOrNull { it !in KNOWN }?.let { throw unknown("option", it, KNOWN) }
            fun number(name: String): Double? = when (val value = given[name]) {
                null -> null
                is Long, is Int, is Double -> (value as Number).toDouble()
                else -> throw ClueException("$name is $value: it must be a number")
            }
            return Options(
                accuracyAtMost = number("accuracy_at_most"),
                maxSeconds = number("max_seconds"),
                maxJoules = number("max_joules"),
                maxCelsius = number("max_celsius"),
                checkpointSteps = number("checkpoint_steps")?.let(::wholeSteps),
                stopAccuracy = number("stop_accuracy"),
                stopJoules = number("stop_joules"),
                holdout = number("holdout"),
                broughtBack = given[BROUGHT_BACK] as? Boolean,
            )
        }

        private fun wholeSteps(steps: Double): Long {
            if (steps != Math.rint(steps)) {
                throw ClueException("checkpoint_steps is $steps: it must be a whole number from 1 on")
            }
            return steps.toLong()
        }

        private fun percent(name: String, value: Double?) {
            if (value != null && !(value in 0.0..100.0)) {
                throw ClueException("$name is $value: it must be from 0 to 100 percent")
            }
        }

        private fun positive(name: String, value: Double?) {
            if (value != null && !(value.isFinite() && value > 0)) {
                throw ClueException("$name is $value: it must be more than 0")
            }
        }
    }
}
