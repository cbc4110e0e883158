package io.cluemobile.power

/**
 * Adds up what a source of energy figures tells. It believes nothing that it cannot account for: from the first reading on that does
 * not fit, [joules] is null and [problem] says why. Used by one thread at a time.
 */
internal interface Meter {
    /** Takes a reading now. */
    fun sample()

    /** Joules since the first sample; null where they are not known. */
    val joules: Double?

    /** Why they are not known. */
    val problem: String?
}

/** What a battery says at one moment, in the units that its system documents; null where it says nothing. */
internal class BatteryReading(
    /** The current, of either sign: systems do not agree which one discharging has. */
    val microamperes: Long?,
    val millivolts: Int?,
    /** The energy that is left. */
    val nanowattHours: Long?,
    /** Whether an external supply is connected. */
    val plugged: Boolean?,
)

/** Why a battery's figures say nothing of what the device used; null where they may. */
internal fun notOnBattery(reading: BatteryReading): String? = when (reading.plugged) {
    true -> "the device was plugged in: what the battery gives is not what the device uses then"
    null -> "the system does not say whether the device is plugged in"
    false -> null
}
