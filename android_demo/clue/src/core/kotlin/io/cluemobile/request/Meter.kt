package io.cluemobile.request

import io.cluemobile.Device
import io.cluemobile.bundle.Program
import io.cluemobile.engine.Engine
import io.cluemobile.run.RunMeter

private const val SCHEMA = 2
private const val NANO = 1e-9

/**
 * What a request cost: a record for each phase and one for the request, as contract/cost.schema.json says.
 *
 * The peak memory is read and reset whenever the phase changes, so that each phase has its own; the request's is the
 * largest of all.
 */
internal class Meter(private val engine: Engine, private val device: Device, batch: Int, private val ledger: EnergyLedger) :
    RunMeter {
    private val phases = LinkedHashMap<String, Account>()
    private var request = Account(batch).also { it.enter(device) }
    private var open = ""

    /** Wall and processor time, seconds, of the parts before an interruption. */
    private var earlier = 0.0 to 0.0
    private val start = System.nanoTime() to device.processorSeconds()

    init {
        device.resetPeakMemory()
    }

    override val steps: Long get() = request.steps.size.toLong()

    override fun loaded(seconds: Double, phase: String?) {
        request.load += seconds
        if (!phase.isNullOrEmpty()) account(phase).load += seconds
    }

    override fun <T> measure(phase: String, batch: Int?, step: Boolean, work: () -> T): T {
        if (phase != open) change(phase)
        val account = phases[phase]
        if (account != null && account.batch == null) account.batch = batch
        val (wall, processor) = System.nanoTime() to device.processorSeconds()
        try {
            return work()
        } finally {
            val seconds = since(wall)
            if (step) request.steps.add(seconds)
            if (account != null) {
                account.wall += seconds
                account.processor += device.processorSeconds() - processor
                if (step) account.steps.add(seconds)
            }
        }
    }

    /** Programs are counted by their time only: this runtime makes no estimates of energy. */
    override fun worked(program: Program, times: Int): Unit = Unit

    /** Counts [work] as time for saving weights or a checkpoint; it is part of no phase. */
    fun <T> saving(work: () -> T): T {
        change("")
        val begun = System.nanoTime()
        try {
            return work()
        } finally {
            request.save += since(begun)
        }
    }

    private fun account(phase: String): Account = phases.getOrPut(phase) { Account() }

    private fun change(phase: String) {
        val peak = device.peakMemory()
        phases[open]?.leave(device, peak)
        ledger.enter(phase)
        request.peak = maxOf(request.peak, peak)
        device.resetPeakMemory()
        open = phase
        if (phase.isNotEmpty()) account(phase).enter(device)
    }

    /**
     * The records so far as JSON: the phases that began, in the order of the plan, then the request.
     *
     * [modelSha256] is the hash of the weights that the request began with, [status] done, failed or cancelled.
     */
    fun records(id: Long, modelSha256: String, status: String): List<Map<String, Any?>> {
        change("")
        ledger.close()
        closeRequest()
        val entered = phases.filterValues { it.wall != 0.0 } + ("request" to request)
        return entered.map { (phase, account) ->
            val about = mapOf("request_id" to id, "model_sha256" to modelSha256, "status" to status)
            record(phase, account, about)
        }
    }

    /** Brings the request's own sums up to this moment. */
    private fun closeRequest() {
        request.wall = earlier.first + since(start.first)
        request.processor = earlier.second + device.processorSeconds() - start.second
        request.leave(device, device.peakMemory())
    }

    /** The sums so far as JSON, for a checkpoint. */
    fun state(): Map<String, Any?> {
        val now = open
        change("")
        closeRequest()
        val state = mapOf(
            "request" to request.state(),
            "phases" to phases.mapValues { it.value.state() },
            "energy" to ledger.state(),
        )
        open = now
        ledger.enter(now)
        return state
    }

    /**
     * Goes on with the sums of [state]; to be called before anything is measured.
     *
     * Throws ClassCastException or NullPointerException when these are not the sums of this version.
     */
    fun restore(state: Map<String, Any?>) {
        request = Account.restored(json(state["request"]))
        phases.clear()
        json(state["phases"]).mapValuesTo(phases) { Account.restored(json(it.value)) }
        earlier = request.wall to request.processor
        ledger.restore(json(state["energy"]))
    }

    @Suppress("UNCHECKED_CAST")
    private fun json(value: Any?): Map<String, Any?> = value as Map<String, Any?>

    private fun record(phase: String, account: Account, about: Map<String, Any?>): Map<String, Any?> {
        fun milliseconds(percent: Double) = account.steps.percentile(percent)?.let { rounded(1000 * it, 3) }
        return linkedMapOf<String, Any?>(
            "schema" to SCHEMA,
            "request_id" to about["request_id"],
            "phase" to phase,
            "device" to linkedMapOf(
                "model" to device.model, "os" to device.os, "soc" to device.soc, "ram_bytes" to device.ramBytes,
            ),
            "runtime" to linkedMapOf(
                "name" to engine.name, "version" to engine.version, "backend" to engine.backend, "threads" to engine.threads,
            ),
            "model_sha256" to about["model_sha256"],
            "batch" to account.batch,
            "steps" to account.steps.size,
            "wall_s" to rounded(account.wall, 6),
            "cpu_s" to rounded(account.processor, 6),
            "step_ms" to linkedMapOf("p50" to milliseconds(50.0), "p95" to milliseconds(95.0)),
            "load_s" to rounded(account.load, 6),
            "save_s" to rounded(account.save, 6),
            "peak_mem_bytes" to account.peak,
            "peak_mem_source" to device.peakMemorySource,
        ) + ledger.record(phase) + linkedMapOf(
            "thermal_start" to account.celsiusStart,
            "thermal_end" to account.celsiusEnd,
            "throttled" to account.throttled,
            "frequency_start" to account.megahertzStart,
            "frequency_end" to account.megahertzEnd,
            "plugged" to device.plugged(),
            "status" to about["status"],
        )
    }
}

/** Seconds since a moment of System.nanoTime. */
internal fun since(moment: Long): Double = (System.nanoTime() - moment) * NANO
