package io.cluemobile.request

import io.cluemobile.ClueException
import io.cluemobile.CostRecord
import io.cluemobile.Device
import io.cluemobile.EngineException
import io.cluemobile.Generation
import io.cluemobile.NoSpaceException
import io.cluemobile.Progress
import io.cluemobile.RequestResult
import io.cluemobile.RequestRow
import io.cluemobile.SqlException
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.engine.Engine
import io.cluemobile.files.appendLine
import io.cluemobile.json.JsonText
import io.cluemobile.run.ArrayImages
import io.cluemobile.run.Begun
import io.cluemobile.run.Cancelled
import io.cluemobile.run.Checks
import io.cluemobile.run.Evidence
import io.cluemobile.run.Job
import io.cluemobile.run.Labelled
import io.cluemobile.run.Paused
import io.cluemobile.run.PlanRun
import io.cluemobile.run.Refused
import io.cluemobile.run.StepProgress
import io.cluemobile.run.StopMeasured
import io.cluemobile.run.WeightsFile
import io.cluemobile.run.planned
import io.cluemobile.run.split
import io.cluemobile.run.verify
import io.cluemobile.store.End
import io.cluemobile.store.INTERRUPTED
import io.cluemobile.store.NewRecord
import io.cluemobile.store.Store
import io.cluemobile.store.checkpointPath
import java.io.IOException
import java.nio.file.Files
import java.util.concurrent.TimeUnit

/** The reason of a pause that was asked for from outside. */
internal const val STOPPED: String = "stopped"
private val ASK_EACH_NS = TimeUnit.SECONDS.toNanos(1) // a look into the database for a cancellation by others

/**
 * How a run is watched and ended from outside, asked between operations: [cancel] ends the request as cancelled, [stop]
 * pauses it.
 */
internal class Control(
    val device: Device,
    val progress: (Progress) -> Unit = {},
    val cancel: () -> Boolean = { false },
    val stop: () -> Boolean = { false },
)

/**
 * Runs a queued request, or lets a paused one go on.
 *
 * A failed check ends it as failed, a guard or budget pauses it; anything that breaks is thrown, after it was noted: as failed,
 * or where a file or the store cannot be reached as interrupted, so that the request goes on once it can be. In every case but
 * done the old weights go on serving. Throws [ClueException] when another request is running, this one has
 * ended, would not go on bit-identically (it stays paused), a program fails or a file cannot be written.
 */
internal fun carryOut(store: Store, engine: Engine, id: Long, control: Control): RequestResult = store.exclusive {
    val request = store.requests.get(id)
    if (request.status != Status.QUEUED && request.status != Status.PAUSED) {
        throw ClueException(
            "request $id is ${request.status.word}: only a queued or paused one can run; retry makes a new one like it",
        )
    }
    val served = store.serving()
    val here = Identity(
        id, request.seed, store.bundle.sha256, served.sha256, engine.name, engine.version, engine.threads,
    )
    val n = planned(request.samples, request.options.holdout ?: 0.0)
    val path = checkpointPath(store.folder, id)
    val found = if (request.status == Status.PAUSED) Checkpoint.read(path, store.bundle, n) else null
    found?.let { (_, identity) -> Checkpoint.check(identity, here) }
    EnergyLedger(control.device.energy()).use { ledger ->
        checkEnergy(request.options, ledger.here() != null)
        store.requests.begin(id, served.id)
        Forgetting(store, engine, request, served, control, here, ledger).carryOut(found?.first)
    }
}

/** One forget request from its lock to its swap: run in memory, verify, write the new weights, serve them. */
private class Forgetting(
    private val store: Store,
    private val engine: Engine,
    private val request: RequestRow,
    private val served: Generation,
    private val control: Control,
    private val identity: Identity,
    private val ledger: EnergyLedger,
) {
    private val bundle = store.bundle
    private val options = request.options
    private val id = request.id
    private var meter = Meter(engine, control.device, bundle.batch, ledger)
    private var accuracyBefore: Double? = null
    private val evidence: MutableMap<String, Any?> = mutableMapOf("samples" to request.samples, "steps" to 0L)
    private var run: PlanRun? = null
    private var budget = Budget(options, ledger::here)
    private val thermal = Thermal(options.celsiusAtMost, control.device)
    private var asked = System.nanoTime()
    private var stopsTold = 0

    fun carryOut(begun: CheckpointState?): RequestResult = try {
        end(Status.DONE, null, newWeights(begun))
    } catch (_: Cancelled) {
        end(Status.CANCELLED, null)
    } catch (refused: Refused) {
        end(Status.FAILED, refused.reason)
    } catch (paused: Paused) {
        pause(paused.reason)
    } catch (error: OutOfMemoryError) {
        val told = EngineException("request $id needs more memory than the app may use: end what else it holds in memory", error)
        giveUp(told)
        throw told
    } catch (error: StorageException) {
        if (isOutOfReach(error)) interrupt(error) else giveUp(error)
        throw error
    } catch (error: Throwable) {
        giveUp(error)
        throw error
    } finally {
        store.cancelling -= id
        run?.close()
    }

    /**
     * Notes the error and removes the new weights, unless it came so late that they serve already.
     *
     * In this order: where the flush of the swap failed its transaction may still be on the disk, and then the weights
     * serve after the next open. Once another transaction went through it is not.
     */
    private fun giveUp(error: Throwable) {
        // What broke matters more than that it could not be noted: the next open notes it as interrupted.
        try {
            if (store.serving().request == id) return
            val path = store.generationPath(id)
            end(Status.FAILED, error.message ?: error.javaClass.simpleName)
            Files.deleteIfExists(path)
        } catch (other: Exception) {
            error.addSuppressed(other)
        }
    }

    /**
     * Pauses the request: its last checkpoint is where it goes on. What it wrote besides is named by no row, and who gets the lock next
     * removes it; if the pause cannot be noted, that one notes it too.
     */
    private fun interrupt(error: StorageException) {
        try {
            if (store.serving().request != id) store.requests.pause(id, "$INTERRUPTED: ${error.message}", evidence)
        } catch (other: Exception) {
            error.addSuppressed(other)
        }
    }

    /** Runs, verifies and writes the new weights; returns their SHA-256. */
    private fun newWeights(begun: CheckpointState?): String {
        thermal.checkStart()
        checkMemory(plannedPeak(bundle, request.samples), control.device.availableMemory())
        val from = restored(begun)
        val start = System.nanoTime()
        val old = WeightsFile.open(served.file, served.sha256, bundle)
        val (samples, heldOut) = split(samples(), options.holdout ?: 0.0, request.seed)
        meter.loaded(since(start))
        val run = begin(old, samples, from)
        try {
            if (accuracyBefore == null) {
                accuracyBefore = meter.measure("verify") { run.accuracy() }
                tell(Progress.ForgetAccuracy(id, null, accuracyBefore!!))
            }
            evidence["forget_accuracy_before"] = accuracyBefore
            run.run()
            store.requests.move(id, Status.VERIFYING)
            verify(old, run, heldOut)
        } finally {
            note()
        }
        check()
        return meter.saving { WeightsFile.write(store.generationPath(id), old, run.values.state()) }
    }

    private fun samples(): Labelled {
        val shape = bundle.input
        val (pixels, labels) = store.samples.ofRequest(id, shape.height * shape.width * shape.channels)
        return Labelled(ArrayImages(labels.size, shape.height, shape.width, shape.channels, pixels), labels)
    }

    /** Takes over the sums of the earlier parts; null when they are another version's: it starts anew. */
    private fun restored(begun: CheckpointState?): CheckpointState? {
        if (begun == null) return null
        try {
            meter.restore(begun.cost)
        } catch (_: RuntimeException) { // casts and nulls of what is not there
            meter = Meter(engine, control.device, bundle.batch, ledger)
            return null
        }
        for ((name, value) in request.evidence) evidence.putIfAbsent(name, value)
        return begun
    }

    private fun begin(old: WeightsFile, samples: Labelled, from: CheckpointState?): PlanRun {
        val job = Job(
            samples,
            request.seed,
            request.scalars,
            progress = ::told,
            check = ::check,
            enough = ::enough,
            save = ::save,
            saveEvery = (options.checkpointSteps ?: 0).coerceAtMost(Int.MAX_VALUE.toLong()).toInt(),
        )
        val begun = from?.let {
            val kept = it.evidence.toMutableMap()
            budget = Budget(options, ledger::here, (kept.remove("joules") as Number).toDouble())
            accuracyBefore = (kept.remove("forget_accuracy_before") as Number).toDouble()
            Begun(it.cursor, it.values, kept)
        }
        return PlanRun(bundle, engine, old, job, meter, begun).also { run = it }
    }

    /** Throws [Refused] unless the new weights may serve. */
    private fun verify(old: WeightsFile, run: PlanRun, heldOut: Labelled) {
        val limit = accuracyLimit(bundle, request.kind, options.accuracyAtMost)
        val forgotten = (listOfNotNull(request.label) + store.forgotten()).toSet()
        meter.measure("verify") { verify(run, old, Checks(limit, forgotten, heldOut), evidence) }
        tell(Progress.ForgetAccuracy(id, run.evidence.epochsRun - 1, (evidence["forget_accuracy_after"] as Number).toDouble()))
    }

    // --- between operations

    private fun tell(progress: Progress) = control.progress(progress)

    /** An operation is over; where it was a stop, it has measured the forget accuracy. */
    private fun told(step: StepProgress) {
        val stops = run?.evidence?.stops.orEmpty()
        for (stop in stops.drop(stopsTold)) tell(Progress.ForgetAccuracy(id, stop.epoch, stop.accuracy))
        stopsTold = stops.size
        tell(Progress.Step(id, step.phase, step.epoch, step.done, step.total, step.metrics))
    }

    /** Throws [Cancelled] or [Paused] when the run is to end here. */
    private fun check() {
        if (control.cancel() || id in store.cancelling) throw Cancelled()
        if (control.stop()) throw Paused(STOPPED)
        if (System.nanoTime() - asked >= ASK_EACH_NS) {
            asked = System.nanoTime()
            if (store.requests.cancelAsked(id)) throw Cancelled()
        }
        budget.check()
        thermal.check()
    }

    /** Whether the request's own limits for stopping early are reached; at the end of an epoch. */
    private fun enough(): Boolean {
        if (budget.enoughEnergy()) return true
        val (run, limit) = (run ?: return false) to (options.stopAccuracy ?: return false)
        val accuracy = meter.measure("verify") { run.accuracy() }
        val epoch = run.evidence.epochsRun - 1
        run.evidence.stops += StopMeasured(run.cursor, epoch, accuracy)
        stopsTold = run.evidence.stops.size
        tell(Progress.ForgetAccuracy(id, epoch, accuracy))
        return accuracy <= limit
    }

    /** Writes the checkpoint of this moment. */
    private fun save() {
        val (run, before) = (run ?: return) to (accuracyBefore ?: return) // else nothing was done that is worth keeping
        meter.saving {
            val evidence = run.soFar() + mapOf("forget_accuracy_before" to before, "joules" to (budget.totalJoules ?: 0.0))
            val state = CheckpointState(run.cursor, run.values.all(), evidence, meter.state())
            Checkpoint.write(checkpointPath(store.folder, id), state, identity, bundle)
        }
    }

    // --- ends

    /** Brings the evidence up to this moment. */
    private fun note() {
        evidence["steps"] = meter.steps
        run?.let { evidence += asJson(it.evidence) }
    }

    private fun pause(reason: String): RequestResult {
        save()
        store.requests.pause(id, reason, evidence)
        return result(Status.PAUSED, reason, emptyList())
    }

    private fun end(status: Status, reason: String?, newSha256: String? = null): RequestResult {
        val records = meter.records(id, served.sha256, status.word)
        val receipt = newSha256?.let {
            store.issuer.forget(
                request, served.sha256, it, served.file.fileName.toString(), evidence, records.last(),
            )
        }
        val texts = records.map { NewRecord(it.getValue("phase") as String, JsonText.of(it)) }
        store.finish(id, End(status, reason, evidence, texts), newSha256, receipt)
        val told = try {
            appendLine(store.folder.resolve("cost.jsonl"), texts.joinToString("\n") { it.json })
            reason
        } catch (error: ClueException) {
            // The store has the records too: no reason to take back what was done.
            listOfNotNull(reason, error.message).joinToString("; ")
        }
        return result(status, told, texts.map { CostRecord.of(it.json) })
    }

    private fun result(status: Status, reason: String?, records: List<CostRecord>) =
        RequestResult(id, status, reason, request.seed, store.requests.get(id).evidence, store.serving().id, records)
}

/** Whether the system refused what is there all the same: permission was taken, a folder moved, a card pulled out; not a full disk. */
private fun isOutOfReach(error: StorageException): Boolean =
    error !is NoSpaceException && (error.cause is IOException || error.cause is SqlException)

private fun asJson(evidence: Evidence): Map<String, Any?> = mapOf(
    "epochs_run" to evidence.epochsRun,
    "stopped_early" to evidence.stoppedEarly,
    "metrics" to evidence.metrics,
    "stops" to evidence.stops.map {
        mapOf("operation" to it.operation, "epoch" to it.epoch, "accuracy" to it.accuracy)
    },
)
