package io.cluemobile.request

import io.cluemobile.Device
import io.cluemobile.run.Paused
import java.util.concurrent.TimeUnit

/** How the reasons of these pauses begin. */
internal const val TOO_HOT: String = "too hot"
internal const val TOO_LITTLE_MEMORY: String = "too little memory"

/** A request that paused goes on when it is this many degrees cooler: not a step after it paused. */
private const val HYSTERESIS = 5.0
private val ASK_EACH_NS = TimeUnit.SECONDS.toNanos(1) // a sensor may take longer than a step
private const val MIB = 1 shl 20

/**
 * Pauses a request above [limit] degrees Celsius, or while the system itself finds the device too hot; a device that tells
 * neither is never too hot.
 */
internal class Thermal(private val limit: Double, private val device: Device) {
    private var asked: Long? = null

    /** Throws [Paused] when it is too hot; asks the sensor once a second. */
    fun check() {
        val moment = System.nanoTime()
        if (asked?.let { moment - it < ASK_EACH_NS } == true) return
        asked = moment
        checkSystem()
        val now = device.celsius()
        if (now != null && now > limit) throw Paused("$TOO_HOT: ${decimal(now)} degrees, the limit is ${plain(limit)}")
    }

    /** Throws [Paused] when it is too hot to begin or to go on. */
    fun checkStart() {
        checkSystem()
        val now = device.celsius()
        if (now != null && now > limit - HYSTERESIS) {
            throw Paused("$TOO_HOT: ${decimal(now)} degrees, a request begins at ${plain(limit - HYSTERESIS)} or less")
        }
    }

    private fun checkSystem() {
        device.tooHot()?.let { throw Paused("$TOO_HOT: $it") }
    }
}

/** Throws [Paused] when the [planned] peak does not fit what is [available] (bytes); nothing is loaded yet. */
internal fun checkMemory(planned: Long, available: Long?) {
    if (available != null && planned > available) {
        throw Paused(
            "$TOO_LITTLE_MEMORY: ${planned / MIB} MiB are planned and ${available / MIB} MiB are available; " +
                "end other programs",
        )
    }
}
