package io.cluemobile.jvm

import com.sun.management.OperatingSystemMXBean
import io.cluemobile.Device
import io.cluemobile.Energy
import io.cluemobile.EnergyFacts
import io.cluemobile.ImageDecoder
import io.cluemobile.Platform
import io.cluemobile.Signer
import io.cluemobile.SqlDatabase
import io.cluemobile.pictures.PictureDecoder
import java.io.IOException
import java.lang.management.ManagementFactory
import java.nio.file.Files
import java.nio.file.Path

private const val KIB = 1024L
private const val NANO = 1e-9

/** A Linux computer with a JVM in the place of Android: for the tests, and to try a bundle. */
public class JvmPlatform : Platform {
    override fun openDatabase(file: Path): SqlDatabase = JdbcDatabase.open(file)

    override fun signer(folder: Path): Signer = FileSigner.open(folder)

    override val images: ImageDecoder = PictureDecoder(ImageIoJpeg)

    override val device: Device = LinuxDevice()
}

/** What the kernel's files tell. */
internal class LinuxDevice : Device {
    private val system = ManagementFactory.getOperatingSystemMXBean() as OperatingSystemMXBean
    private var resets = true

    override val model: String = read("/sys/class/dmi/id/product_name") ?: System.getProperty("os.arch")

    override val os: String =
        "${System.getProperty("os.name")} ${System.getProperty("os.version")}, Java ${System.getProperty("java.version")}"

    override val soc: String? = null

    override val ramBytes: Long = system.totalMemorySize

    override fun celsius(): Double? = read("/sys/class/thermal/thermal_zone0/temp")?.toIntOrNull()?.let { it / 1000.0 }

    override fun throttled(): Boolean? = null

    override fun megahertz(): Double? =
        read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")?.toLongOrNull()?.let { it / 1000.0 }

    override fun plugged(): Boolean? = null

    override fun availableMemory(): Long? = kibibytes("/proc/meminfo", "MemAvailable:")

    override fun processorSeconds(): Double = system.processCpuTime * NANO

    override fun peakMemory(): Long = kibibytes("/proc/self/status", "VmHWM:") ?: 0

    override fun resetPeakMemory() {
        try {
            Files.write(Path.of("/proc/self/clear_refs"), "5".toByteArray())
        } catch (_: IOException) {
            resets = false
        }
    }

    override val peakMemorySource: String get() = if (resets) "VmHWM" else "VmHWM, not reset"

    override fun energy(): Energy = NotMeasured

    private fun kibibytes(file: String, name: String): Long? {
        val line = read(file)?.lineSequence()?.firstOrNull { it.startsWith(name) } ?: return null
        return line.removePrefix(name).trim().substringBefore(' ').toLongOrNull()?.let { it * KIB }
    }

    private fun read(file: String): String? = try {
        String(Files.readAllBytes(Path.of(file))).trim().ifEmpty { null }
    } catch (_: IOException) {
        null
    }
}

private object NotMeasured : Energy {
    override val facts: EnergyFacts? = null
    override val note: String = "this runtime reads no meter on a JVM"

    override fun joules(): Double? = null

    override fun close(): Unit = Unit
}
