package io.cluemobile.android

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import io.cluemobile.power.BatteryReading

private const val TENTHS = 10.0

// Android documents tenths of a degree; what is outside of this is another unit, or a sensor that does not exist.
private val BELIEVABLE_CELSIUS = -30.0..120.0

/** What Android tells of the battery, each figure null where the device does not support it. */
internal class BatteryState(private val context: Context) {
    private val manager = context.service<BatteryManager>()

    fun reading(): BatteryReading {
        val broadcast = broadcast()
        return BatteryReading(
            microamperes = property(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW),
            millivolts = broadcast?.getIntExtra(BatteryManager.EXTRA_VOLTAGE, 0)?.takeIf { it > 0 },
            nanowattHours = manager.getLongProperty(BatteryManager.BATTERY_PROPERTY_ENERGY_COUNTER).takeIf { it > 0 },
            plugged = plugged(broadcast),
        )
    }

    fun plugged(): Boolean? = plugged(broadcast())

    /** The battery's temperature in degrees Celsius. */
    fun celsius(): Double? =
        broadcast()?.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, Int.MIN_VALUE)
            ?.takeIf { it != Int.MIN_VALUE && it != 0 } // 0 is what devices without the sensor say
            ?.let { it / TENTHS }
            ?.takeIf { it in BELIEVABLE_CELSIUS }

    /** The last broadcast of the battery, which the system keeps. */
    private fun broadcast(): Intent? = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))

    private fun plugged(broadcast: Intent?): Boolean? =
        broadcast?.getIntExtra(BatteryManager.EXTRA_PLUGGED, -1)?.takeIf { it >= 0 }?.let { it != 0 }

    /** A property in its documented unit; "not supported" is Int.MIN_VALUE since API 28, and 0 before. */
    private fun property(id: Int): Long? =
        manager.getIntProperty(id).takeIf { it != Int.MIN_VALUE && it != 0 }?.toLong()
}
