package io.cluemobile.power

import kotlin.math.abs

private const val LONGEST_GAP_S = 10.0

// Below 10 mA no phone runs a processor, above 20 A no phone's battery delivers: such figures are in another unit.
private val BELIEVABLE_MICROAMPERES = 10_000L..20_000_000L

// One cell at its end to four in series.
private val BELIEVABLE_MILLIVOLTS = 2_500..18_000

/**
 * The energy that a battery gives: current times voltage, a straight line between two samples (the trapezoid rule).
 *
 * [read] gives a reading and [seconds] a clock that does not jump.
 */
internal class CurrentMeter(private val read: () -> BatteryReading, private val seconds: () -> Double) : Meter {
    private var sum = 0.0
    private var last: Sample? = null

    override var problem: String? = null
        private set

    override val joules: Double? get() = sum.takeIf { problem == null && last != null }

    override fun sample() {
        if (problem != null) return
        val reading = read()
        val now = seconds()
        problem = unusable(reading)
        if (problem != null) return
        val current = checkNotNull(reading.microamperes)
        val watts = abs(current) * 1e-6 * checkNotNull(reading.millivolts) * 1e-3
        val before = last
        if (before != null) {
            val passed = now - before.at
            when {
                passed > LONGEST_GAP_S -> problem = "no reading of the battery for ${passed.toInt()} s"
                before.inwards != current > 0 ->
                    problem = "the battery's current changed its sign without a supply: the battery's figures contradict each other"
                else -> sum += (before.watts + watts) / 2 * passed
            }
        }
        last = Sample(now, watts, current > 0)
    }

    private fun unusable(reading: BatteryReading): String? {
        val current = reading.microamperes
        val volts = reading.millivolts
        return notOnBattery(reading) ?: when {
            current == null -> "the battery tells no current"
            volts == null -> "the battery tells no voltage"
            abs(current) !in BELIEVABLE_MICROAMPERES ->
                "a battery's current of $current microamperes is not to be believed: this device may count in another unit"
            volts !in BELIEVABLE_MILLIVOLTS ->
                "a battery's voltage of $volts millivolts is not to be believed: this device may count in another unit"
            else -> null
        }
    }

    private class Sample(val at: Double, val watts: Double, val inwards: Boolean)
}
