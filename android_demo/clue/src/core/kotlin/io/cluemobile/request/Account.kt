package io.cluemobile.request

import io.cluemobile.Device
import kotlin.math.ceil
import kotlin.math.floor

/** A growing row of numbers, without a box for each. */
internal class Doubles {
    private var content = DoubleArray(64)
    var size: Int = 0
        private set

    fun add(value: Double) {
        if (size == content.size) content = content.copyOf(2 * size)
        content[size++] = value
    }

    fun toList(): List<Double> = content.take(size)

    /** The percentile [percent], between two neighbours in proportion; null when there is none. */
    fun percentile(percent: Double): Double? {
        if (size == 0) return null
        val sorted = content.copyOf(size).apply { sort() }
        val place = percent / 100 * (size - 1)
        val (below, above) = sorted[floor(place).toInt()] to sorted[ceil(place).toInt()]
        return below + (above - below) * (place - floor(place))
    }
}

/** The sums of one phase, or of the request. */
internal class Account(var batch: Int? = null) {
    var wall: Double = 0.0
    var processor: Double = 0.0
    var load: Double = 0.0
    var save: Double = 0.0
    var steps: Doubles = Doubles()
    var peak: Long = 0
    var celsiusStart: Double? = null
    var celsiusEnd: Double? = null
    var throttled: Boolean? = null
    var megahertzStart: Double? = null
    var megahertzEnd: Double? = null

    fun enter(device: Device) {
        if (wall != 0.0) return
        celsiusStart = device.celsius()
        megahertzStart = device.megahertz()
    }

    fun leave(device: Device, peak: Long) {
        this.peak = maxOf(this.peak, peak)
        celsiusEnd = device.celsius()
        megahertzEnd = device.megahertz()
        val now = device.throttled()
        throttled = throttled?.let { it || now == true } ?: now
    }

    /** Every sum as JSON; step times to the microsecond. */
    fun state(): Map<String, Any?> = mapOf(
        "batch" to batch,
        "wall_s" to wall,
        "cpu_s" to processor,
        "load_s" to load,
        "save_s" to save,
        "steps" to steps.toList().map { rounded(it, 6) },
        "peak" to peak,
        "thermal_start" to celsiusStart,
        "thermal_end" to celsiusEnd,
        "throttled" to throttled,
        "frequency_start" to megahertzStart,
        "frequency_end" to megahertzEnd,
    )

    companion object {
        /** The sums of [state]. Throws ClassCastException or NullPointerException when these are not the sums of this version. */
        fun restored(state: Map<String, Any?>): Account = Account((state["batch"] as Number?)?.toInt()).apply {
            fun number(name: String) = (state[name] as Number?)?.toDouble()
            wall = number("wall_s")!!
            processor = number("cpu_s")!!
            load = number("load_s")!!
            save = number("save_s")!!
            for (step in state["steps"] as List<*>) steps.add((step as Number).toDouble())
            peak = (state["peak"] as Number).toLong()
            celsiusStart = number("thermal_start")
            celsiusEnd = number("thermal_end")
            throttled = state["throttled"] as Boolean?
            megahertzStart = number("frequency_start")
            megahertzEnd = number("frequency_end")
        }
    }
}

/** [value] to so many decimal places. */
internal fun rounded(value: Double, places: Int): Double {
    var scale = 1.0
    repeat(places) { scale *= 10 }
    return Math.rint(value * scale) / scale
}
