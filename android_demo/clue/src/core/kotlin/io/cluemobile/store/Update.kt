package io.cluemobile.store

import io.cluemobile.BroughtBackException
import io.cluemobile.ClueException
import io.cluemobile.RequestRow
import io.cluemobile.StorageException
import io.cluemobile.UpdatePolicy
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.files.atomicWrite
import io.cluemobile.files.between
import io.cluemobile.files.erase
import io.cluemobile.files.storage
import io.cluemobile.json.JsonText
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.Path

private const val PIECE = 1 shl 20

/** Compares the store's bundle with the one that it is opened with; adopts weights. Needs the lock. */
internal class Update(
    private val database: Database,
    private val bundle: ClueBundle,
    private val generations: Generations,
    private val requests: Requests,
    private val samples: Samples,
    private val policy: UpdatePolicy,
) {
    /** Whether the store is just being made, maybe by another process. */
    fun isNew(): Boolean = !database.any("SELECT 1 FROM generations LIMIT 1")

    private val identity: Map<String, String> = mapOf(
        "name" to bundle.name,
        "manifest_sha256" to bundle.sha256,
        "weights_sha256" to bundle.weights.sha256,
        "classes" to array(bundle.classes),
        "input" to array(bundle.input.run { listOf(channels, height, width) }),
    )

    /** With the spaces of clue-pi, which compares texts. */
    private fun array(items: List<Any>): String = items.joinToString(", ", "[", "]") { JsonText.of(it) }

    private fun stored(): Map<String, String> =
        database.rows("SELECT key, value FROM bundle") { it.text(0)!! to it.text(1)!! }.toMap()

    /** Whether these weights were adopted last. Throws [StorageException] for other classes or input. */
    fun check(): Boolean {
        val stored = stored()
        for (key in listOf("classes", "input")) {
            // Another runtime writes the same list with other spaces.
            if (stored[key]?.let(::listOf) != listOf(identity.getValue(key))) {
                throw StorageException(
                    "the store ${database.folder} belongs to another bundle (${stored["name"] ?: "not known"}), " +
                        "whose $key differ: choose another folder",
                )
            }
        }
        return stored["weights_sha256"] == identity["weights_sha256"]
    }

    private fun listOf(text: String): Any? = parseRow("{\"list\":$text}", database.folder)["list"]

    /**
     * Brings the store to this bundle.
     *
     * When its weights lack the effect of requests, [note] is called in the transaction with these and the SHA-256 of the
     * weights that served before. Throws [BroughtBackException] as the policy says, [StorageException] for a changed or
     * erased weights file and for a full disk; then nothing is changed.
     */
    fun adopt(note: (lost: List<RequestRow>, before: String) -> Unit) {
        if (!isNew() && check()) {
            // The same weights in a bundle that was exported again.
            if (stored() != identity) database.transaction { writeIdentity() }
            return
        }
        val lost = generations.effective().map(requests::get)
        if (lost.isNotEmpty() && policy == UpdatePolicy.REFUSE) {
            throw BroughtBackException(
                "the weights of ${bundle.root} bring back what was forgotten (${names(lost)}): open it with the policy " +
                    "PENDING (--policy pending) to forget it again, SERVE (--policy serve) to have it back, or the bundle before",
            )
        }
        val again = if (policy == UpdatePolicy.PENDING) lost.map { it to samplesOf(it) } else emptyList()
        val before = if (lost.isEmpty()) "" else generations.serving().sha256
        val digest = copy()
        try {
            database.transaction {
                generations.insert(null, null, digest)
                writeIdentity()
                for ((request, ids) in again) requests.create(again(request, ids))
                if (lost.isNotEmpty()) note(lost, before)
            }
        } catch (error: Throwable) {
            erase(generations.path(generations.nextId()))
            throw error
        }
    }

    private fun again(request: RequestRow, ids: List<Long>) = NewRequest(
        kind = request.kind,
        label = request.label,
        className = request.className,
        seed = request.seed,
        scalars = request.scalars,
        options = request.options.copy(broughtBack = true),
        samples = ids,
        retryOf = request.id,
    )

    private fun writeIdentity() {
        for ((key, value) in identity) database.execute("INSERT OR REPLACE INTO bundle VALUES (?, ?)", key, value)
    }

    /** Copies the bundle's weights to the place of the next generation; returns their SHA-256. */
    private fun copy(): String {
        val source = bundle.file(bundle.weights.file)
        if (!Files.exists(source) && Files.exists(bundle.erasedMark)) {
            throw StorageException("the weights of ${bundle.root} were erased by sealing: copy the bundle again")
        }
        val path = generations.path(generations.nextId())
        erase(path)
        val digest = copy(source, path)
        if (digest != bundle.weights.sha256) {
            erase(path)
            throw StorageException("$source was changed: its SHA-256 is not the manifest's; copy the bundle again")
        }
        return digest
    }

    private fun copy(source: Path, target: Path): String = storage("read", source) { FileChannel.open(source) }.use {
        val piece = ByteBuffer.allocate(PIECE)
        val pieces = generateSequence {
            piece.between(0, PIECE)
            // a failure to read is not one to write, which atomicWrite would take it for
            if (storage("read", source) { it.read(piece) } < 0) null else piece.between(0, piece.position())
        }
        atomicWrite(target, pieces)
    }

    /** The samples of a request, or of its class when they were erased. Throws [ClueException] for none. */
    private fun samplesOf(request: RequestRow): List<Long> {
        val own = requests.samples(request.id)
        if (own.size == request.samples) return own
        return request.label?.let(samples::ids)?.ifEmpty { null } ?: throw ClueException(
            "${request.about} (request ${request.id}) cannot be forgotten again, its samples are erased: add samples of " +
                "the class with the bundle before, or open it with the policy SERVE (--policy serve)",
        )
    }

    private fun names(lost: List<RequestRow>): String = lost.map { it.about }.distinct().joinToString()
}
