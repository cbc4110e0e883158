package io.cluemobile.jvm

import io.cluemobile.CostRecord
import io.cluemobile.Status
import io.cluemobile.json.JsonObject
import io.cluemobile.json.StrictJson
import io.cluemobile.json.asObject
import io.cluemobile.json.number
import io.cluemobile.json.numberOrNull
import io.cluemobile.json.obj
import io.cluemobile.json.text
import io.cluemobile.json.whole
import java.util.Locale

private const val MIB = 1 shl 20

/** How a request ended, in the lines of `clue-pi`. */
internal fun told(status: Status, reason: String?, evidence: JsonObject): List<String> {
    val lines = mutableListOf(if (reason == null) status.word else "${status.word}: $reason")
    if ("forget_accuracy_after" in evidence) {
        lines += "forget accuracy: " + change(evidence.number("forget_accuracy_before"), evidence.number("forget_accuracy_after"))
    }
    for ((name, about) in listOf("held_out" to "held-out samples", "guard" to "the other classes")) {
        val found = evidence[name]?.asObject() ?: continue
        lines += "accuracy on $about: " + change(found.number("accuracy_before"), found.number("accuracy_after"))
    }
    evidence["collapse"]?.asObject()?.let {
        lines += "${one(it.number("kept"))} % of ${it.whole("probes")} made-up images keep their class"
    }
    if ("epochs_run" in evidence) {
        val early = if (evidence["stopped_early"] == true) ", stopped early" else ""
        val size = "${evidence["samples"]} samples, ${evidence["epochs_run"]} epochs$early"
        lines += "$size, ${evidence["steps"]} steps"
    }
    if (status != Status.DONE) lines += "the old weights are still served"
    return lines
}

/** What a phase cost, in a line of `clue-pi log`. */
internal fun told(cost: CostRecord): String {
    val record = StrictJson.parse(cost.json.encodeToByteArray(), MIB).asObject()
    val step = record.obj("step_ms").numberOrNull("p50")?.let { ", ${String.format(Locale.ROOT, "%.0f", it)} ms a step" }.orEmpty()
    val energy = cost.joules?.let { ", ${one(it)} J ${record.text("energy_kind")}" }.orEmpty()
    val memory = String.format(Locale.ROOT, "%.0f", cost.peakMemoryBytes.toDouble() / MIB)
    return "  ${cost.phase}: ${one(cost.seconds)} s, ${cost.steps} steps$step, $memory MiB$energy"
}

private fun change(before: Double, after: Double) = "${one(before)} % before, ${one(after)} % after"

private fun one(value: Double): String = String.format(Locale.ROOT, "%.1f", value)
