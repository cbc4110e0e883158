package io.cluemobile.android

import android.app.ActivityManager
import android.content.Context
import android.os.Build
import android.os.PowerManager
import android.os.Process
import android.os.SystemClock
import io.cluemobile.Device
import io.cluemobile.Energy
import io.cluemobile.EnergyFacts
import io.cluemobile.power.BatteryCounterMeter
import io.cluemobile.power.CurrentMeter
import io.cluemobile.power.Opened
import io.cluemobile.power.firstThatWorks
import java.io.File
import java.io.IOException

private const val SAMPLES_PER_SECOND = 1.0

/** The device that the app runs on. What Android does not tell an app is null. */
internal class AndroidDevice(private val context: Context) : Device {
    private val battery = BatteryState(context)
    private val power = context.service<PowerManager>()
    private val activities = context.service<ActivityManager>()
    private val memory = PeakMemory()

    override val model: String
        get() = if (Build.MODEL.startsWith(Build.MANUFACTURER, true)) Build.MODEL else "${Build.MANUFACTURER} ${Build.MODEL}"

    override val os: String
        get() = "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT}), kernel ${System.getProperty("os.version")}"

    override val soc: String?
        get() = if (Build.VERSION.SDK_INT < Build.VERSION_CODES.S) null else Build.SOC_MODEL.takeIf { it != Build.UNKNOWN }

    override val ramBytes: Long get() = memoryInfo().totalMem

    /** The battery's: the processor's zones are closed to apps. */
    override fun celsius(): Double? = battery.celsius()

    override fun throttled(): Boolean? =
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) null else power.currentThermalStatus >= PowerManager.THERMAL_STATUS_MODERATE

    override fun tooHot(): String? {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return null
        val status = power.currentThermalStatus
        return if (status >= PowerManager.THERMAL_STATUS_SEVERE) "the system reports severe heat (thermal status $status)" else null
    }

    override fun megahertz(): Double? = Cpu.fastestMegahertz()

    override fun plugged(): Boolean? = battery.plugged()

    override fun availableMemory(): Long = memoryInfo().let { maxOf(0, it.availMem - it.threshold) }

    override fun processorSeconds(): Double = Process.getElapsedCpuTime() / 1e3

    override fun peakMemory(): Long = memory.read()

    override fun resetPeakMemory() {
        memory.reset()
    }

    override val peakMemorySource: String get() = memory.source

    override fun energy(): Energy = firstThatWorks(
        listOf(
            { PowerRails.open(context) },
            {
                Opened.Found(
                    BatteryCounterMeter(battery::reading),
                    EnergyFacts("battery energy counter", "the whole device, screen and radio too", "measured", hz = null),
                    "the battery's counter moves in steps",
                )
            },
            {
                Opened.Found(
                    CurrentMeter(battery::reading) { SystemClock.elapsedRealtimeNanos() / 1e9 },
                    EnergyFacts("battery current", "the whole device, screen and radio too", "measured", SAMPLES_PER_SECOND),
                    "the battery's gauge may average over seconds",
                )
            },
        ),
    )

    private fun memoryInfo() = ActivityManager.MemoryInfo().also(activities::getMemoryInfo)
}

private object Cpu {
    private val clocks: List<File> =
        (0 until Runtime.getRuntime().availableProcessors()).map { File("/sys/devices/system/cpu/cpu$it/cpufreq/scaling_cur_freq") }

    /** MHz; null where the kernel does not let apps read it. */
    fun fastestMegahertz(): Double? = clocks.mapNotNull { readText(it)?.trim()?.toLongOrNull() }.maxOrNull()?.let { it / 1e3 }
}

/** The largest resident memory of this process, as the kernel counts it. */
private class PeakMemory {
    var source = "VmHWM"
        private set

    fun read(): Long {
        val line = readText(File("/proc/self/status"))?.lineSequence()?.firstOrNull { it.startsWith("VmHWM:") }
        return line?.filter(Char::isDigit)?.toLongOrNull()?.times(1024) ?: 0
    }

    fun reset() {
        try {
            File("/proc/self/clear_refs").writeText("5")
        } catch (_: IOException) {
            source = "VmHWM, not reset"
        }
    }
}

private fun readText(file: File): String? = try {
    file.readText()
} catch (_: IOException) {
    null
}
