package io.cluemobile.run

import io.cluemobile.json.JsonObject
import io.cluemobile.json.asObject
import io.cluemobile.json.int
import io.cluemobile.json.number
import io.cluemobile.json.obj
import io.cluemobile.json.objects
import io.cluemobile.json.whole

/** What a stop measured: the [accuracy] in percent. */
internal class StopMeasured(val operation: Long, val epoch: Int, val accuracy: Double)

/**
 * What happened: the mean of each metric by phase and epoch, what the stops measured. Its JSON goes into the store and, with the
 * sums of the unfinished means, into checkpoints.
 */
internal class Evidence {
    var epochsRun: Int = 0
    var stoppedEarly: Boolean = false

    /** Phase -> metric -> the mean of each epoch. */
    val metrics: MutableMap<String, MutableMap<String, MutableList<Double>>> = LinkedHashMap()
    val stops: MutableList<StopMeasured> = mutableListOf()
    private val sums = LinkedHashMap<Pair<String, String>, Sum>()

    private class Sum(val epoch: Int, var total: Double, var count: Long)

    /** Take in the metrics of one run of a program. */
    fun log(phase: String, epoch: Int, found: Map<String, Double>) {
        for ((name, value) in found) {
            if (!value.isFinite()) throw Refused("$name became ${spelled(value)} in epoch ${epoch + 1}")
            val means = metrics.getOrPut(phase) { LinkedHashMap() }.getOrPut(name) { mutableListOf() }
            var sum = sums[phase to name]
            if (sum == null || sum.epoch != epoch) {
                means += 0.0
                sum = Sum(epoch, 0.0, 0).also { sums[phase to name] = it }
            }
            sum.total += value
            sum.count++
            means[means.size - 1] = sum.total / sum.count
        }
    }

    /** `epochs_run`, `stopped_early`, `metrics` and `stops`. */
    fun json(): JsonObject = linkedMapOf(
        "epochs_run" to epochsRun.toLong(),
        "stopped_early" to stoppedEarly,
        "metrics" to metrics.mapValues { (_, means) -> means.mapValues { it.value.toList() } },
        "stops" to stops.map { mapOf("operation" to it.operation, "epoch" to it.epoch.toLong(), "accuracy" to it.accuracy) },
    )

    /** [json] with the `sums` that the means are made of. */
    fun jsonWithSums(): JsonObject =
        json() + ("sums" to sums.map { (key, sum) -> listOf(key.first, key.second, sum.epoch.toLong(), sum.total, sum.count) })

    /** Take over what [jsonWithSums] gave. */
    fun restore(json: JsonObject) {
        epochsRun = json.int("epochs_run")
        stoppedEarly = json["stopped_early"] as Boolean
        for ((phase, means) in json.obj("metrics")) {
            metrics[phase] = means.asObject().mapValuesTo(LinkedHashMap()) { (_, each) -> numbers(each).toMutableList() }
        }
        json.objects("stops").mapTo(stops) { StopMeasured(it.whole("operation"), it.int("epoch"), it.number("accuracy")) }
        for (row in json["sums"] as List<*>) {
            val (phase, name, epoch, total, count) = row as List<*>
            sums[phase as String to name as String] = Sum((epoch as Long).toInt(), (total as Number).toDouble(), count as Long)
        }
    }

    private fun numbers(list: Any?): List<Double> = (list as List<*>).map { (it as Number).toDouble() }

    private fun spelled(value: Double): String = if (value.isNaN()) "nan" else if (value > 0) "inf" else "-inf"
}
