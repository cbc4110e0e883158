package io.cluemobile.android

import android.annotation.TargetApi
import android.content.Context
import android.os.Build
import android.os.OutcomeReceiver
import android.os.PowerMonitor
import android.os.PowerMonitorReadings
import android.os.health.SystemHealthManager
import io.cluemobile.EnergyFacts
import io.cluemobile.power.Opened
import io.cluemobile.power.RailsMeter
import java.util.concurrent.CompletableFuture
import java.util.concurrent.ExecutionException
import java.util.concurrent.Executor
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException

private const val ANSWER_S = 2L
private val AT_ONCE = Executor(Runnable::run)

/** The measuring monitors of power rails, which some devices have since API 35. */
@TargetApi(Build.VERSION_CODES.VANILLA_ICE_CREAM)
internal class PowerRails private constructor(
    private val manager: SystemHealthManager,
    private val rails: List<PowerMonitor>,
) {
    /** Microwatt-seconds by rail; null when the service does not answer. */
    private fun read(): Map<String, Long?>? {
        val answer = CompletableFuture<PowerMonitorReadings>()
        manager.getPowerMonitorReadings(
            rails,
            AT_ONCE,
            object : OutcomeReceiver<PowerMonitorReadings, RuntimeException> {
                override fun onResult(result: PowerMonitorReadings) {
                    answer.complete(result)
                }

                override fun onError(error: RuntimeException) {
                    answer.completeExceptionally(error)
                }
            },
        )
        val readings = wait(answer) ?: return null
        return rails.associate { rail ->
            rail.name to readings.getConsumedEnergy(rail).takeIf { it != PowerMonitorReadings.ENERGY_UNAVAILABLE.toLong() }
        }
    }

    companion object {
        fun open(context: Context): Opened {
            if (Build.VERSION.SDK_INT < Build.VERSION_CODES.VANILLA_ICE_CREAM) return Opened.Missing("power monitors need Android 15")
            val manager = context.getSystemService(SystemHealthManager::class.java)
                ?: return Opened.Missing("the system has no power monitors")
            val answer = CompletableFuture<List<PowerMonitor>>()
            manager.getSupportedPowerMonitors(AT_ONCE) { answer.complete(it) }
            // monitors of the other type are models of parts, whose energy the rails have already
            val rails = wait(answer).orEmpty().filter { it.type == PowerMonitor.POWER_MONITOR_TYPE_MEASUREMENT }
            if (rails.isEmpty()) return Opened.Missing("the system has no power monitors that measure")
            val facts = EnergyFacts(
                source = "power monitors",
                scope = "rails: " + rails.joinToString { it.name },
                kind = "measured",
                hz = null,
            )
            return Opened.Found(RailsMeter(PowerRails(manager, rails)::read), facts, "the system may refresh its monitors rarely")
        }

        private fun <T> wait(answer: CompletableFuture<T>): T? = try {
            answer.get(ANSWER_S, TimeUnit.SECONDS)
        } catch (_: TimeoutException) {
            null
        } catch (_: ExecutionException) {
            null
        } catch (_: InterruptedException) { // whoever interrupted the thread is told, and there is no reading
            Thread.currentThread().interrupt()
            null
        }
    }
}
