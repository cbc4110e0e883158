package io.cluemobile.store

import io.cluemobile.Sample
import io.cluemobile.StorageException
import io.cluemobile.files.sha256

/** The samples: stored once for a label, encrypted, each by a key of its own that a request's key wraps. */
internal class Samples(private val database: Database, private val keys: Keys) {
    /** Stores images of one shape; returns the ids of those that were not there with this label. */
    fun add(images: List<ByteArray>, shape: Shape, label: Int): List<Long> = database.transaction {
        val new = ArrayList<Long>()
        var keyId = 0L
        var wrapper: ByteArray? = null
        for (content in images) {
            val sha256 = sha256(content)
            if (database.any("SELECT id FROM samples WHERE label = ? AND sha256 = ?", label, sha256)) continue
            if (wrapper == null) {
                keyId = keys.intake(label)
                wrapper = keys.read(keyId)
            }
            new += insert(content, NewSample(shape, sha256, label, now()), keyId, wrapper)
        }
        new
    }

    /** Encrypts and inserts one sample under the key [keyId], whose bytes are [wrapper]; returns its id. */
    fun insert(content: ByteArray, sample: NewSample, keyId: Long, wrapper: ByteArray): Long {
        val key = AesGcm.newKey()
        val (sha256, label) = sample.sha256 to sample.label
        val id = database.insert(
            "INSERT INTO samples (id, sha256, label, height, width, channels, key_id, wrapped, added) " +
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            sample.id, sha256, label, sample.shape.height, sample.shape.width, sample.shape.channels, keyId,
            AesGcm.lock(wrapper, key, about("key", sha256, label)), sample.added,
        )
        val locked = AesGcm.lock(key, content, about("sample", sha256, label))
        database.execute("INSERT INTO pixels VALUES (?, ?)", id, locked)
        return id
    }

    /** The ids of a class's samples, oldest first. */
    fun ids(label: Int): List<Long> = database.longs("SELECT id FROM samples WHERE label = ? ORDER BY id", label)

    /** How many samples each label has; labels without any are left out. */
    fun counts(): Map<Int, Int> =
        database.rows("SELECT label, count(*) FROM samples GROUP BY label ORDER BY label") {
            it.long(0)!!.toInt() to it.long(1)!!.toInt()
        }.toMap()

    /** The samples of a label, or all, oldest first. */
    fun listed(label: Int?): List<Sample> {
        val where = if (label == null) "" else "WHERE label = ? "
        val values = listOfNotNull(label).toTypedArray()
        return database.rows(
            "SELECT id, label, sha256, added, (SELECT max(request_id) FROM request_samples " +
                "WHERE sample_id = samples.id) FROM samples ${where}ORDER BY id",
            *values,
        ) { Sample(it.long(0)!!, it.long(1)!!.toInt(), it.text(2)!!, it.text(3)!!, it.long(4)) }
    }

    /**
     * The pixels of a request's samples, one after the other in the order of their positions, and their labels.
     *
     * Throws [StorageException] when they were erased, a key is gone or a sample was changed.
     */
    fun ofRequest(request: Long, imageBytes: Int): Pair<ByteArray, IntArray> {
        val count = count(request)
        if (count.toLong() * imageBytes > Int.MAX_VALUE) {
            throw StorageException("request $request has $count samples, more than fit in memory: forget some at a time")
        }
        val pixels = ByteArray(count * imageBytes)
        val labels = IntArray(count)
        val wrappers = HashMap<Long, ByteArray>()
        database.each(
            "SELECT position, samples.id, sha256, label, key_id, wrapped, content FROM request_samples " +
                "JOIN samples ON samples.id = request_samples.sample_id " +
                "JOIN pixels ON pixels.sample_id = samples.id WHERE request_id = ?",
            request,
        ) { row ->
            val (position, sha256, label) = Triple(row.long(0)!!.toInt(), row.text(2)!!, row.long(3)!!.toInt())
            val wrapper = wrappers.getOrPut(row.long(4)!!) { keys.read(row.long(4)!!) }
            val key = AesGcm.unlock(wrapper, row.blob(5)!!, about("key", sha256, label))
            val clear = key?.let { AesGcm.unlock(it, row.blob(6)!!, about("sample", sha256, label)) }
            if (clear == null || clear.size != imageBytes) throw changed(row.long(1)!!)
            clear.copyInto(pixels, position * imageBytes)
            labels[position] = label
        }
        return pixels to labels
    }

    private fun changed(sample: Long) =
        StorageException("sample $sample of ${database.folder} was changed or is damaged")

    private fun count(request: Long): Int {
        val count = database.long("SELECT count(*) FROM request_samples WHERE request_id = ?", request)!!
        val asked = database.long("SELECT samples FROM requests WHERE id = ?", request)
        if (count != asked) {
            throw StorageException("request $request has $count of its $asked samples: others were erased")
        }
        return count.toInt()
    }

    /**
     * Brings the samples of a new request under keys of its own; inside a transaction.
     *
     * A key all of whose samples the request has becomes its own; other samples get a new one.
     */
    fun take(request: Long) {
        var own: Pair<Long, ByteArray>? = null
        val found = database.rows(
            "SELECT key_id, count(*) FROM request_samples JOIN samples ON samples.id = sample_id " +
                "WHERE request_id = ? GROUP BY key_id",
            request,
        ) { it.long(0)!! to it.long(1)!! }
        for ((keyId, mine) in found) {
            if (mine == database.long("SELECT count(*) FROM samples WHERE key_id = ?", keyId)) {
                database.execute("UPDATE keys SET request_id = ?, label = NULL WHERE id = ?", request, keyId)
                continue
            }
            val (newId, new) = own ?: keys.create(request).let { it to keys.read(it) }.also { own = it }
            val chosen = wrapped(
                "SELECT samples.id, sha256, label, wrapped FROM request_samples " +
                    "JOIN samples ON samples.id = sample_id WHERE request_id = ? AND key_id = ?",
                request, keyId,
            )
            rewrap(chosen, keys.read(keyId), newId, new)
        }
    }

    /**
     * Wraps every sample's key by a new one and marks the old ones destroyed; inside a transaction.
     *
     * A key that is in use may also have wrapped the keys of samples that are gone, in an earlier page.
     */
    fun renewKeys() {
        val live = database.rows("SELECT id, request_id, label FROM keys WHERE destroyed IS NULL") {
            Triple(it.long(0)!!, it.long(1), it.long(2)?.toInt())
        }
        for ((keyId, request, label) in live) {
            val old = keys.read(keyId)
            database.execute("UPDATE keys SET destroyed = ?, label = NULL WHERE id = ?", now(), keyId)
            val newId = keys.create(request, label)
            val new = keys.read(newId)
            while (true) {
                val chosen = wrapped("SELECT id, sha256, label, wrapped FROM samples WHERE key_id = ? LIMIT 10000", keyId)
                if (chosen.isEmpty()) break
                rewrap(chosen, old, newId, new)
            }
        }
        keys.giveUpUnused()
    }

    private fun wrapped(query: String, vararg values: Any?): List<Wrapped> = database.rows(query, *values) {
        Wrapped(it.long(0)!!, it.text(1)!!, it.long(2)!!.toInt(), it.blob(3)!!)
    }

    private fun rewrap(chosen: List<Wrapped>, old: ByteArray, newId: Long, new: ByteArray) {
        for (sample in chosen) {
            val about = about("key", sample.sha256, sample.label)
            val key = AesGcm.unlock(old, sample.key, about) ?: throw changed(sample.id)
            database.execute(
                "UPDATE samples SET key_id = ?, wrapped = ? WHERE id = ?", newId, AesGcm.lock(new, key, about), sample.id,
            )
        }
    }

    private class Wrapped(val id: Long, val sha256: String, val label: Int, val key: ByteArray)
}

/** Height, width and channels of stored images. */
internal class Shape(val height: Int, val width: Int, val channels: Int)

/** What is stored of a sample besides its pixels; [id] is given only where an old store has one. */
internal class NewSample(val shape: Shape, val sha256: String, val label: Int, val added: String, val id: Long? = null)

/** What an encrypted key or image belongs to: it cannot be put in another's place. */
private fun about(what: String, sha256: String, label: Int): ByteArray = "clue-$what-v1 $sha256 $label".toByteArray()
