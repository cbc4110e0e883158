package io.cluemobile.store

import io.cluemobile.ClueException
import io.cluemobile.Options
import io.cluemobile.RequestRow
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.TransitionException

/** The states that have not ended, for an IN. */
internal const val UNFINISHED: String = "('queued', 'running', 'verifying', 'paused')"
internal const val INTERRUPTED: String = "interrupted"

/** The reason of a running request that is to end. */
internal const val CANCEL_ASKED: String = "cancel asked"
private const val ACTIVE = "('running', 'verifying')"
private const val COLUMNS = "id, kind, label, class, status, seed, scalars, options, samples, retry_of, " +
    "base_generation, reason, evidence, created, started, finished, rolled_back, seal_began, sealed"

/** From which states a request may come to a state; what is not here is illegal. */
internal val TRANSITIONS: Map<Status, Set<Status>> = mapOf(
    Status.RUNNING to setOf(Status.QUEUED, Status.PAUSED),
    Status.VERIFYING to setOf(Status.RUNNING),
    Status.PAUSED to setOf(Status.RUNNING, Status.VERIFYING),
    Status.DONE to setOf(Status.VERIFYING),
    Status.FAILED to setOf(Status.RUNNING, Status.VERIFYING),
    Status.CANCELLED to setOf(Status.QUEUED, Status.RUNNING, Status.VERIFYING, Status.PAUSED),
)
private val FINAL = setOf(Status.DONE, Status.FAILED, Status.CANCELLED)

/** What a new request is about; frozen with it. */
internal class NewRequest(
    val kind: String,
    val label: Int?,
    val className: String?,
    val seed: Long,
    val scalars: Map<String, Double>,
    val options: Options,
    val samples: List<Long>,
    val retryOf: Long? = null,
)

/** A cost record to be kept: its phase and its text. */
internal class NewRecord(val phase: String, val json: String)

/** Rows of `requests`, `request_samples` and `records`; each change of state is one transaction. */
internal class Requests(private val database: Database, private val samples: Samples) {
    /**
     * A new request, queued, with its samples frozen in this order; returns its id.
     *
     * Throws [ClueException] when there is no sample, one is not stored, stands twice, has another class, or is part of
     * an unfinished request; then nothing is changed.
     */
    fun create(new: NewRequest): Long {
        if (new.samples.isEmpty()) throw ClueException("a request needs at least one sample")
        if (new.samples.toSet().size < new.samples.size) {
            throw ClueException("a sample stands twice in the request: name each once")
        }
        return database.transaction {
            val id = database.insert(
                "INSERT INTO requests (kind, label, class, status, seed, scalars, options, samples, retry_of, created) " +
                    "VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
                new.kind, new.label, new.className, new.seed, jsonRow(new.scalars), jsonRow(new.options.asMap()),
                new.samples.size, new.retryOf, now(),
            )
            freeze(id, new)
            samples.take(id)
            id
        }
    }

    private fun freeze(id: Long, new: NewRequest) {
        new.samples.forEachIndexed { position, sample ->
            val label = database.long("SELECT label FROM samples WHERE id = ?", sample)
                ?: throw ClueException("no sample $sample is stored")
            if (new.label != null && label != new.label.toLong()) {
                throw ClueException("sample $sample has label $label, the request is about label ${new.label}")
            }
            database.execute("INSERT INTO request_samples VALUES (?, ?, ?)", id, position, sample)
        }
        val taken = database.rows(
            "SELECT mine.sample_id, requests.id, status FROM request_samples AS mine " +
                "JOIN request_samples AS others ON others.sample_id = mine.sample_id " +
                "JOIN requests ON requests.id = others.request_id WHERE mine.request_id = ? " +
                "AND others.request_id <> mine.request_id AND status IN $UNFINISHED LIMIT 1",
            id,
        ) { "sample ${it.long(0)} is part of request ${it.long(1)}, which is ${it.text(2)}" }
        if (taken.isNotEmpty()) throw ClueException("${taken[0]}: let that one end, or cancel it")
    }

    /** One request. Throws [ClueException] when there is none of that id. */
    fun get(id: Long): RequestRow = rows("WHERE id = ?", id).firstOrNull() ?: run {
        val last = database.long("SELECT max(id) FROM requests")
        throw ClueException("no request $id is stored: " + if (last == null) "there is none so far" else "the latest is $last")
    }

    /** Every request, oldest first. */
    fun all(): List<RequestRow> = rows("ORDER BY id")

    private fun rows(where: String, vararg values: Any?): List<RequestRow> =
        database.rows("SELECT $COLUMNS FROM requests $where", *values) { row ->
            RequestRow(
                id = row.long(0)!!,
                kind = row.text(1)!!,
                label = row.long(2)?.toInt(),
                className = row.text(3),
                status = status(row.text(4)!!),
                seed = row.long(5)!!,
                scalars = parseRow(row.text(6), database.folder).mapValues { number(it.value) },
                options = Options.of(parseRow(row.text(7), database.folder)),
                samples = row.long(8)!!.toInt(),
                retryOf = row.long(9),
                baseGeneration = row.long(10),
                reason = row.text(11),
                evidence = parseRow(row.text(12), database.folder),
                created = row.text(13)!!,
                started = row.text(14),
                finished = row.text(15),
                rolledBack = row.text(16),
                sealBegan = row.text(17),
                sealed = row.text(18),
            )
        }

    private fun number(value: Any?): Double = (value as? Number)?.toDouble()
        ?: throw StorageException("the store ${database.folder} is damaged: a scalar of a request is no number")

    private fun status(word: String): Status = Status.entries.first { it.word == word }

    // --- states

    /** Changes the state, and [columns] with it. Throws [TransitionException] where the state does not allow that. */
    fun move(id: Long, status: Status, columns: Map<String, Any?> = emptyMap()) {
        val before = TRANSITIONS[status].orEmpty().map { it.word }
        val sets = columns.keys.joinToString("") { ", $it = ?" }
        database.transaction {
            val changed = database.execute(
                "UPDATE requests SET status = ?$sets WHERE id = ? AND status IN (${marks(before.size)})",
                status.word, *columns.values.toTypedArray(), id, *before.toTypedArray(),
            )
            if (changed == 0) throw illegal(id, status)
        }
    }

    private fun illegal(id: Long, status: Status): TransitionException {
        val found = get(id).status
        val may = TRANSITIONS.filterValues { found in it }.keys.joinToString { it.word }
        val after = if (may.isEmpty()) "that is final" else "it may become $may"
        return TransitionException("request $id is ${found.word} and cannot become ${status.word}: $after")
    }

    /** Queued or paused to running. Throws [ClueException] when another one runs. */
    fun begin(id: Long, baseGeneration: Long): Unit = database.transaction {
        val other = database.long("SELECT id FROM requests WHERE status IN $ACTIVE")
        if (other != null && other != id) throw ClueException("request $other is running: one runs at a time")
        move(id, Status.RUNNING, mapOf("base_generation" to baseGeneration, "reason" to null))
        database.execute("UPDATE requests SET started = coalesce(started, ?) WHERE id = ?", now(), id)
        Unit
    }

    /** Running or verifying to paused. */
    fun pause(id: Long, reason: String, evidence: Map<String, Any?>): Unit =
        move(id, Status.PAUSED, mapOf("reason" to reason, "evidence" to jsonRow(evidence)))

    /** Queued or paused to cancelled; a running one ends where it runs. */
    fun cancel(id: Long): Unit = database.transaction {
        val status = get(id).status
        if (status == Status.RUNNING || status == Status.VERIFYING) {
            throw TransitionException("request $id is ${status.word}: end it where it runs")
        }
        move(id, Status.CANCELLED, mapOf("finished" to now()))
    }

    /** Running or verifying to done, failed or cancelled, with the cost records. */
    fun finish(id: Long, status: Status, reason: String?, evidence: Map<String, Any?>, records: List<NewRecord>) {
        if (status !in FINAL) throw TransitionException("a request does not end as ${status.word}")
        database.transaction {
            move(id, status, mapOf("reason" to reason, "evidence" to jsonRow(evidence), "finished" to now()))
            for (record in records) {
                database.execute(
                    "INSERT INTO records (request_id, phase, record) VALUES (?, ?, ?)", id, record.phase, record.json,
                )
            }
        }
    }

    /** The ids of a request's samples that are still there, in the order of their positions. */
    fun samples(id: Long): List<Long> =
        database.longs("SELECT sample_id FROM request_samples WHERE request_id = ? ORDER BY position", id)

    /** Asks the run that has a request to cancel it; false when it does not run. */
    fun askCancel(id: Long): Boolean =
        database.execute("UPDATE requests SET reason = ? WHERE id = ? AND status IN $ACTIVE", CANCEL_ASKED, id) == 1

    /** Whether somebody asked that a running request be cancelled. */
    fun cancelAsked(id: Long): Boolean =
        database.any("SELECT 1 FROM requests WHERE id = ? AND reason = ?", id, CANCEL_ASKED)

    /**
     * Pauses what a process was running that is gone; only who holds the lock knows that it is. What was to be cancelled
     * is cancelled.
     */
    fun interrupted() {
        // A store on a full disk can still be read.
        if (!database.any("SELECT 1 FROM requests WHERE status IN $ACTIVE")) return
        database.transaction {
            database.execute(
                "UPDATE requests SET status = 'cancelled', reason = NULL, finished = ? " +
                    "WHERE status IN $ACTIVE AND reason = ?",
                now(), CANCEL_ASKED,
            )
            database.execute("UPDATE requests SET status = 'paused', reason = ? WHERE status IN $ACTIVE", INTERRUPTED)
        }
    }

    /** The text of every cost record, oldest first. */
    fun records(): List<String> = database.rows("SELECT record FROM records ORDER BY id") { it.text(0)!! }
}
