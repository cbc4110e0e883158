package io.cluemobile.store

import io.cluemobile.BusyException
import io.cluemobile.ClueException
import io.cluemobile.Generation
import io.cluemobile.NotErased
import io.cluemobile.Platform
import io.cluemobile.Receipt
import io.cluemobile.RequestRow
import io.cluemobile.SealPlan
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.UpdatePolicy
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.files.erase
import io.cluemobile.files.sha256File
import io.cluemobile.receipts.Issuer
import io.cluemobile.receipts.Make
import java.nio.file.Files
import java.nio.file.Path
import java.util.concurrent.ConcurrentHashMap

private const val WAIT_MS = 1_000L
private const val WAIT_FOR_NEW_MS = 10_000L

/** Where the checkpoint of a request lies in the store's [folder]. */
internal fun checkpointPath(folder: Path, request: Long): Path =
    folder.resolve("checkpoints").resolve("${digits(request)}.safetensors")

/**
 * The store as the runtime uses it: one object over its parts; created when it is not there.
 *
 * Throws [StorageException] when the store belongs to other classes, was made by a newer runtime, or cannot be read.
 */
internal class Store(val folder: Path, val bundle: ClueBundle, platform: Platform, private val policy: UpdatePolicy) :
    AutoCloseable {
    init {
        prepareFolder(folder, bundle.root)
    }

    val database: Database = Database(folder, platform)
    val issuer: Issuer = Issuer(bundle) { platform.signer(folder) }
    private val keys = Keys(database)
    val samples: Samples = Samples(database, keys)
    val requests: Requests = Requests(database, samples)
    private val generations = Generations(database)

    /** The requests whose run in this process was asked to cancel them; the database is looked into only once a second. */
    val cancelling: MutableSet<Long> = ConcurrentHashMap.newKeySet()
    private val receipts = ReceiptRows(database)
    private val sealing = Sealing(database, bundle, generations, requests, samples, ::removeUnnamed)

    init {
        try {
            open(Update(database, bundle, generations, requests, samples, policy))
        } catch (error: Throwable) {
            database.close()
            throw error
        }
    }

    private fun open(update: Update) {
        Migration(database, samples, keys).prepare()
        // Who runs a request keeps the lock: then there is nothing to recover, and no other weights to adopt.
        try {
            exclusive(if (update.isNew()) WAIT_FOR_NEW_MS else 0) {
                update.adopt(::adopted)
                quietly { receipts.writeFiles() }
                // What fails here (a full disk, a reader) is tried again at the next open, or by `seal`.
                quietly { sealing.begun().forEach { seal(it, tell = {}, begin = false) } }
            }
        } catch (error: BusyException) {
            if (!update.check()) throw error
        }
        update.check()
    }

    private fun adopted(lost: List<RequestRow>, before: String) {
        val names = lost.mapNotNull { it.className }.distinct()
        add("adopt", null, issuer.adopt(before, serving().sha256, policy.name.lowercase(), names))
    }

    override fun close(): Unit = database.close()

    // --- the lock

    /**
     * Holds the lock for running, sealing or rolling back; the system frees it when the process dies. Once it is held, a
     * request that a dead process ran is paused and the files that it left are removed.
     *
     * Throws [BusyException] when another holds it for [waitMs] milliseconds (opening a store holds it for a moment).
     */
    fun <T> exclusive(waitMs: Long = WAIT_MS, work: () -> T): T = database.exclusive(waitMs, ::recover, work)

    private fun recover() {
        requests.interrupted()
        // On a full disk the store can still be read; the next lock does it again.
        quietly {
            removeUnnamed()
            receipts.writeFiles()
        }
    }

    /** Removes what no row names: files half written, given up, or erased; needs the lock. */
    private fun removeUnnamed() {
        database.settle()
        keys.destroyMarked()
        generations.removeUnnamed(::erase)
        // A checkpoint that goes on from erased weights holds what is left of them.
        val kept = database.longs(
            "SELECT id FROM requests WHERE status IN $UNFINISHED AND NOT EXISTS " +
                "(SELECT 1 FROM generations WHERE id = base_generation AND erased NOTNULL)",
        ).map { checkpointPath(folder, it) }.toSet()
        list(folder.resolve("checkpoints")).filter { it !in kept && !Files.isDirectory(it) }.forEach(::erase)
        (list(folder) + list(receipts.folder)).filter { it.toString().endsWith(".part") }.forEach(::erase)
    }

    // --- requests

    /** A request whose process died is paused by this, as soon as the lock is free. */
    fun statusNow(id: Long): Status {
        val status = requests.get(id).status
        if (status != Status.RUNNING && status != Status.VERIFYING) return status
        try {
            exclusive(0) {} // who gets the lock pauses what nobody runs any longer
        } catch (_: BusyException) {
            return status
        }
        return requests.get(id).status
    }

    /** Queued or paused to cancelled; its checkpoint is removed. */
    fun cancel(id: Long) {
        requests.cancel(id)
        erase(checkpointPath(folder, id))
    }

    /**
     * Ends a request in one transaction; with [newSha256] its generation serves from then on, and [receipt] is added.
     *
     * Throws [ClueException] when the request began with other weights than those that serve; then nothing is changed.
     */
    fun finish(id: Long, end: End, newSha256: String? = null, receipt: Make? = null) {
        database.transaction {
            requests.finish(id, end.status, end.reason, end.evidence, end.records)
            if (newSha256 != null) {
                val base = requests.get(id).baseGeneration
                val serving = serving().id
                if (base != serving) {
                    throw ClueException("request $id began with generation $base, now $serving serves: retry it")
                }
                generations.insert(id, base, newSha256)
            }
            if (receipt != null) receipts.add("forget", id, receipt)
        }
        // The request has ended: that these fail is no reason to say otherwise. The next lock does them again.
        quietly { receipts.writeFiles() }
        quietly { erase(checkpointPath(folder, id)) }
    }

    // --- generations

    /** Where the weights that a request makes are to be written; needs the lock. */
    fun generationPath(request: Long): Path = generations.path(generations.ofRequest(request))

    fun serving(): Generation = generations.serving()

    fun generations(): List<Generation> = generations.all()

    /** See `Unlearner.rollback`. */
    fun rollback(id: Long): List<Long> = exclusive {
        val target = generations.get(id)
        val before = serving()
        if (target.erased != null) throw ClueException("generation $id was erased by sealing: it cannot serve again")
        if (target.serving) throw ClueException("generation $id serves already")
        if (sha256File(target.file) != target.sha256) {
            throw StorageException("weights ${target.file} were changed: their SHA-256 is not the recorded one")
        }
        val effective = generations.effective()
        val forgotten = forgotten()
        val lost = database.transaction {
            generations.serve(id)
            val lost = effective - generations.effective().toSet()
            val back = forgotten - forgotten().toSet()
            val make = issuer.rollback(before.sha256, target.sha256, lost, back.map(bundle.classes::get))
            receipts.add("rollback", null, make)
            lost
        }
        quietly { receipts.writeFiles() }
        lost
    }

    fun sealPlan(id: Long): SealPlan = sealing.plan(id)

    /** See `Unlearner.seal`. */
    fun seal(id: Long, tell: (String) -> Unit, begin: Boolean = true): List<NotErased> = exclusive {
        if (begin) sealing.begin(id)
        val notErased = sealing.carryOn(
            id,
            { request, erased, left -> receipts.add("seal", id, issuer.seal(request, serving().sha256, erased, left)) },
            tell,
        )
        quietly { receipts.writeFiles() }
        notErased
    }

    /** The labels that are forgotten by the serving weights, or are to be again after an update; oldest request first. */
    fun forgotten(): List<Int> {
        val effective = generations.effective().toSet()
        return requests.all().filter { request ->
            val pending = request.options.broughtBack == true &&
                request.status != Status.DONE && request.status != Status.CANCELLED
            request.label != null && (request.id in effective || pending)
        }.mapNotNull { it.label }.distinct()
    }

    // --- receipts

    private fun add(kind: String, request: Long?, make: Make) {
        receipts.add(kind, request, make)
    }

    fun receipts(): List<Receipt> = receipts.all()
}

/** How a request ends. */
internal class End(
    val status: Status,
    val reason: String?,
    val evidence: Map<String, Any?>,
    val records: List<NewRecord>,
)

/** Does what may fail for want of space or a reader without harm: it is done again later. */
private fun quietly(work: () -> Unit) {
    try {
        work()
    } catch (_: ClueException) {
        return
    }
}
