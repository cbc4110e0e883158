package io.cluemobile.store

import io.cluemobile.ClueException
import io.cluemobile.NotErased
import io.cluemobile.RequestRow
import io.cluemobile.SealPlan
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.files.overwrite
import io.cluemobile.files.storage
import io.cluemobile.files.syncFolder
import java.io.IOException
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption

private const val SHARING = "SELECT DISTINCT others.request_id FROM request_samples AS mine " +
    "JOIN request_samples AS others ON others.sample_id = mine.sample_id " +
    "WHERE mine.request_id = ? AND others.request_id <> ?"

/** Adds the receipt of a sealing: what was erased, and what was not. */
internal typealias IssueSeal = (request: RequestRow, erased: List<String>, notErased: List<NotErased>) -> Unit

/**
 * Sealing makes the effect of a request final: samples, keys, and the weights from before it are erased. Every step can be
 * done again, so an interrupted sealing is carried on from its start. All of it needs the lock.
 */
internal class Sealing(
    private val database: Database,
    private val bundle: ClueBundle,
    private val generations: Generations,
    private val requests: Requests,
    private val samples: Samples,
    private val removeUnnamed: () -> Unit,
) {
    private val weights: Path = bundle.file(bundle.weights.file)
    private val mark: Path = bundle.erasedMark

    /** The request. Throws [ClueException] when it cannot be sealed. */
    fun check(id: Long): RequestRow {
        val request = requests.get(id)
        if (request.status != Status.DONE) {
            throw ClueException("request $id is ${request.status.word}: only one that is done can be sealed")
        }
        if (request.sealed != null) throw ClueException("request $id was sealed already (${request.sealed})")
        if (request.rolledBack != null) {
            throw ClueException("request $id has no effect on the serving weights: a rollback or an update took it")
        }
        val sharing = database.rows(
            "SELECT id, status FROM requests WHERE status IN $UNFINISHED AND id IN ($SHARING) LIMIT 1", id, id,
        ) { "request ${it.long(0)}, which is ${it.text(1)}, has samples of request $id: let it end, or cancel it" }
        if (sharing.isNotEmpty()) throw ClueException(sharing[0])
        return request
    }

    /** What sealing would erase. Throws [ClueException] when the request cannot be sealed. */
    fun plan(id: Long): SealPlan {
        val request = check(id)
        val kept = kept(id)
        val doomed = generations.all().filter { it.id !in kept }
        val found = doomed.filter { it.erased == null }.map { it.file }.toMutableList()
        val bases = doomed.map { it.id }.toSet()
        requests.all()
            .filter { it.baseGeneration in bases && it.status !in setOf(Status.DONE, Status.FAILED, Status.CANCELLED) }
            .map { checkpointPath(database.folder, it.id) }
            .filterTo(found) { Files.exists(it) }
        val refusal = refusal()
        if (Files.exists(weights) && refusal == null) found.add(weights)
        val stays = request.label?.let {
            database.long(
                "SELECT count(*) FROM samples WHERE label = ? AND id NOT IN " +
                    "(SELECT sample_id FROM request_samples WHERE request_id = ?)",
                it, id,
            )
        }
        return SealPlan(
            request = id,
            samples = samplesLeft(id).toInt(),
            classSamples = (stays ?: 0).toInt(),
            later = database.longs(SHARING, id, id),
            files = found.map { it.toString() },
            bytes = found.filter { Files.exists(it) }.sumOf { storage("read", it) { Files.size(it) } },
            notErased = listOfNotNull(refusal?.let { NotErased(weights.toString(), it) }, original()),
        )
    }

    /** Notes that a request is being sealed: from here on it is carried on. */
    fun begin(id: Long) {
        check(id)
        database.execute("UPDATE requests SET seal_began = coalesce(seal_began, ?) WHERE id = ?", now(), id)
    }

    /** The requests whose sealing was interrupted. */
    fun begun(): List<Long> = database.longs("SELECT id FROM requests WHERE seal_began NOTNULL AND sealed IS NULL")

    /**
     * Does every step, [tell] is given each in words; returns what was not erased.
     *
     * [issue] is called in the last transaction. Throws [StorageException] when a step fails (disk full, another process
     * reads the database); then it can be carried on.
     */
    fun carryOn(id: Long, issue: IssueSeal, tell: (String) -> Unit): List<NotErased> {
        tell("erasing samples and keys")
        eraseRows(id)
        tell("erasing weights and checkpoints")
        removeUnnamed()
        val notErased = eraseBundle() + listOfNotNull(original())
        tell("clearing the database and its log")
        database.vacuum()
        val request = requests.get(id)
        database.transaction {
            database.execute("UPDATE requests SET sealed = ? WHERE id = ?", now(), id)
            issue(request, erased(request), notErased)
        }
        return notErased
    }

    private fun kept(id: Long): Set<Long> = generations.family(generations.ofRequest(id))

    private fun samplesLeft(id: Long): Long =
        database.long("SELECT count(*) FROM request_samples WHERE request_id = ?", id)!!

    /** Samples, keys and file names, in one transaction; files that are named no longer go afterwards. */
    private fun eraseRows(id: Long): Unit = database.transaction {
        val kept = kept(id)
        for (generation in database.longs("SELECT id FROM generations WHERE file NOTNULL").filter { it !in kept }) {
            database.execute(
                "UPDATE generations SET file = NULL, erased = ?, erased_for = ? WHERE id = ?", now(), id, generation,
            )
        }
        if (samplesLeft(id) == 0L) return@transaction
        database.pragma("defer_foreign_keys = ON")
        val mine = "IN (SELECT sample_id FROM request_samples WHERE request_id = ?)"
        database.execute("DELETE FROM pixels WHERE sample_id $mine", id)
        database.execute("DELETE FROM samples WHERE id $mine", id)
        database.execute("DELETE FROM request_samples WHERE sample_id $mine", id)
        samples.renewKeys()
    }

    /** Why the bundle's weights cannot be erased. */
    private fun refusal(): String? {
        if (!Files.exists(weights)) return null
        return listOf(weights, weights.parent).firstOrNull { !Files.isWritable(it) }?.let { "${it.fileName} is not writable" }
    }

    /** The weights that the bundle's were copied from. */
    private fun original(): NotErased? =
        bundle.copyOf?.let { NotErased("$it/${bundle.weights.file}", "it is part of the installed app") }

    /** Erases the bundle's weights; an empty file tells later opens that this is why they are missing. */
    private fun eraseBundle(): List<NotErased> {
        try {
            if (Files.exists(weights)) {
                // Under the other name first: a bundle whose weights are half overwritten could not be opened.
                Files.move(weights, mark, StandardCopyOption.ATOMIC_MOVE)
                syncFolder(mark.parent)
            }
            if (Files.exists(mark) && Files.size(mark) > 0) overwrite(mark)
        } catch (error: IOException) {
            return listOf(NotErased(weights.toString(), error.message ?: error.javaClass.simpleName))
        } catch (error: StorageException) {
            return listOf(NotErased(weights.toString(), error.message.orEmpty()))
        }
        return emptyList()
    }

    private fun erased(request: RequestRow): List<String> = buildList {
        add("${request.samples} samples and their keys")
        database.longs("SELECT id FROM generations WHERE erased_for = ?", request.id)
            .mapTo(this) { "weights of generation $it" }
        if (Files.exists(mark) && !Files.exists(weights)) add("weights of the bundle")
    }
}
