package io.cluemobile.request

import io.cluemobile.ClueException
import io.cluemobile.Options
import io.cluemobile.run.Paused
import java.util.Locale

/** Throws [ClueException] when an option needs the energy and this device does not measure it. */
internal fun checkEnergy(options: Options, measured: Boolean) {
    if (options.needEnergy.isNotEmpty() && !measured) {
        throw ClueException(
            "${options.needEnergy.joinToString(" and ")}: this device does not measure energy, so that nothing can be " +
                "stopped by it; leave it out, or give max_seconds",
        )
    }
}

/**
 * What a run of a request may take: seconds and [joules]; over it the request pauses at a checkpoint.
 *
 * Counts from when it is made; [earlier] joules were used by earlier parts of the request.
 */
internal class Budget(private val options: Options, private val joules: () -> Double?, private val earlier: Double = 0.0) {
    private val start = System.nanoTime()

    /** What the request has used so far, earlier parts included; null where it is not measured. */
    val totalJoules: Double? get() = joules()?.let { earlier + it }

    /** Throws [Paused] when the run has taken what it may take. */
    fun check() {
        val seconds = since(start)
        options.maxSeconds?.let { if (seconds >= it) throw Paused("over budget: ${decimal(seconds)} s of ${plain(it)} s") }
        options.maxJoules?.let {
            val used = joules() ?: throw Paused("over budget: max_joules is set and the energy is not measured any longer")
            if (used >= it) throw Paused("over budget: ${decimal(used)} J of ${plain(it)} J")
        }
    }

    /** Whether stop_joules is reached. */
    fun enoughEnergy(): Boolean = options.stopJoules?.let { limit -> totalJoules?.let { it >= limit } } ?: false
}

/** With one decimal place, in every language of the device. */
internal fun decimal(value: Double): String = String.format(Locale.ROOT, "%.1f", value)

/** Without a point where it is whole. */
internal fun plain(value: Double): String = if (value == Math.rint(value)) value.toLong().toString() else value.toString()
