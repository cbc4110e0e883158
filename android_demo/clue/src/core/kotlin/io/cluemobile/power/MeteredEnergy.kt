package io.cluemobile.power

import io.cluemobile.Energy
import io.cluemobile.EnergyFacts
import java.util.concurrent.Executors
import java.util.concurrent.ScheduledExecutorService
import java.util.concurrent.TimeUnit

/** No energy, and why. */
internal class NoEnergy(override val note: String) : Energy {
    override val facts: EnergyFacts? get() = null

    override fun joules(): Double? = null

    override fun close() = Unit
}

/**
 * A [meter] that is read whenever somebody asks, and, where [source] has a rate, that often by a thread of its own. [remark] is told
 * beside the figures as long as nothing is wrong with them.
 */
internal class MeteredEnergy(
    private val meter: Meter,
    private val source: EnergyFacts,
    private val remark: String? = null,
) : Energy {
    private val thread: ScheduledExecutorService? = source.hz?.let { hz ->
        val period = (1e6 / hz).toLong()
        Executors.newSingleThreadScheduledExecutor { Thread(it, "clue energy").apply { isDaemon = true } }.apply {
            scheduleAtFixedRate(::sample, period, period, TimeUnit.MICROSECONDS)
        }
    }

    override val facts: EnergyFacts get() = source

    override val note: String? get() = synchronized(meter) { meter.problem } ?: remark

    override fun joules(): Double? = synchronized(meter) {
        meter.sample()
        meter.joules
    }

    private fun sample() {
        synchronized(meter) { meter.sample() }
    }

    override fun close() {
        thread?.shutdownNow()
    }
}

/** The first of [sources] that gives a reading, or none with every reason. */
internal fun firstThatWorks(sources: List<() -> Opened>): Energy {
    val reasons = mutableListOf<String>()
    for (open in sources) {
        when (val opened = open()) {
            is Opened.Missing -> reasons += opened.reason
            is Opened.Found -> {
                opened.meter.sample()
                val problem = opened.meter.problem ?: return MeteredEnergy(opened.meter, opened.facts, opened.remark)
                reasons += problem
            }
        }
    }
    return NoEnergy(reasons.distinct().joinToString("; "))
}

/** What looking for a source of energy figures came to. */
internal sealed interface Opened {
    class Missing(val reason: String) : Opened

    class Found(val meter: Meter, val facts: EnergyFacts, val remark: String? = null) : Opened
}
