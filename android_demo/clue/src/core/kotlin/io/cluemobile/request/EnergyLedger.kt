package io.cluemobile.request

import io.cluemobile.Energy

private const val REQUEST = "request"

/** Which phase used how much energy: the counter's difference while the phase is open. */
internal class EnergyLedger(private val energy: Energy) : AutoCloseable {
    private val sums = HashMap<String, Double?>()
    private val earlier = HashMap<String, Double?>()
    private val began = energy.joules()
    private var ended: Double? = null
    private var closed = false
    private var phase = ""
    private var since = began

    /** A phase begins ("" for none) and the one before ends. */
    fun enter(next: String) {
        val now = energy.joules()
        if (phase.isNotEmpty()) sums[phase] = plus(sums.getOrDefault(phase, 0.0), minus(now, since))
        phase = next
        since = now
    }

    /** The energy of this run of the request, without earlier parts, joules; null where it is not known. */
    fun here(): Double? = minus(if (closed) ended else energy.joules(), began)

    /** The energy of a phase or of the request, earlier parts included; null where it is not known for every part. */
    private fun joules(name: String): Double? {
        val here = if (name == REQUEST) here() else sums.getOrDefault(name, if (began == null) null else 0.0)
        return plus(earlier.getOrDefault(name, 0.0), here)
    }

    /** The energy's keys of a cost record (contract/cost.schema.json); null where not measured. */
    fun record(name: String): Map<String, Any?> {
        val joules = joules(name)?.takeIf { it > 0 }?.let { rounded(it, 6) }
        val facts = energy.facts.takeIf { joules != null }
        return mapOf(
            "energy_j" to joules,
            "energy_source" to facts?.source,
            "energy_scope" to facts?.scope,
            "energy_kind" to facts?.kind,
            "energy_note" to note(joules != null),
            "idle_w" to null,
            "sampler_hz" to energy.facts?.hz,
            "sampler_cpu_s" to null,
        )
    }

    private fun note(known: Boolean): String? = energy.note ?: when {
        known -> null
        earlier.values.any { it == null } -> "an earlier part of this request was not measured in the same way"
        else -> "the meter gave no figure"
    }

    /** What is known so far as JSON, for a checkpoint; no phase may be open. */
    fun state(): Map<String, Any?> {
        val names = setOf(REQUEST) + sums.keys + earlier.keys
        return mapOf("facts" to facts(), "joules" to names.sorted().associateWith(::joules))
    }

    private fun facts(): Map<String, Any?> =
        energy.facts?.let { mapOf("source" to it.source, "scope" to it.scope, "kind" to it.kind) } ?: emptyMap()

    /** Goes on from [state]. Parts that were measured in another way make the whole unknown. */
    fun restore(state: Map<*, *>) {
        val same = state["facts"] == facts() && energy.facts != null
        for ((name, value) in state["joules"] as Map<*, *>) {
            earlier[name as String] = if (same) (value as Number?)?.toDouble() else null
        }
    }

    /** Ends the measuring; what is known stays. May be called again. */
    override fun close() {
        if (closed) return
        enter("")
        ended = energy.joules()
        closed = true
        energy.close()
    }

    private fun plus(one: Double?, other: Double?): Double? = if (one == null || other == null) null else one + other

    private fun minus(one: Double?, other: Double?): Double? = if (one == null || other == null) null else one - other
}
