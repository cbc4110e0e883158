package io.cluemobile.power

private const val JOULES_PER_NANOWATT_HOUR = 3.6e-6
private const val JOULES_PER_MICROWATT_SECOND = 1e-6

/** The energy that a battery's own counter lost. It moves in steps: what is shorter than one shows none. */
internal class BatteryCounterMeter(private val read: () -> BatteryReading) : Meter {
    private var first: Long? = null
    private var latest = 0L

    override var problem: String? = null
        private set

    override val joules: Double?
        get() = first?.takeIf { problem == null }?.let { (it - latest) * JOULES_PER_NANOWATT_HOUR }

    override fun sample() {
        if (problem != null) return
        val reading = read()
        val left = reading.nanowattHours
        problem = notOnBattery(reading) ?: when {
            left == null || left <= 0 -> "the battery counts no energy"
            first != null && left > latest -> "the battery's energy rose without a supply: its counter was set anew"
            else -> null
        }
        if (problem != null) return
        latest = checkNotNull(left)
        if (first == null) first = left
    }
}

/**
 * The energy that counters of power rails rose by. [read] gives microwatt-seconds since the device started by the name of the rail, null
 * for a rail that cannot be read; it is null when nothing answered.
 */
internal class RailsMeter(private val read: () -> Map<String, Long?>?) : Meter {
    private var first: Map<String, Long>? = null
    private var latest: Map<String, Long> = emptyMap()

    override var problem: String? = null
        private set

    override val joules: Double?
        get() = first?.takeIf { problem == null }?.let { begin ->
            begin.keys.sumOf { latest.getValue(it) - begin.getValue(it) } * JOULES_PER_MICROWATT_SECOND
        }

    override fun sample() {
        if (problem != null) return
        val found = read()
        val silent = found?.filterValues { it == null }?.keys.orEmpty()
        problem = when {
            found.isNullOrEmpty() -> "the power monitors did not answer"
            // a sum that lacks a rail looks like a low figure
            silent.isNotEmpty() -> "the power monitor ${silent.first()} gave no reading"
            first != null && found.keys != latest.keys -> "the power monitors changed while they were read"
            latest.any { (rail, value) -> found.getValue(rail)!! < value } -> "a power monitor was set back while it was read"
            else -> null
        }
        if (problem != null) return
        latest = checkNotNull(found).mapValues { checkNotNull(it.value) }
        if (first == null) first = latest
    }
}
