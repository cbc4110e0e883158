package io.cluemobile.store

import io.cluemobile.StorageException

private const val USER_VERSION = 2L
private const val WAIT_MS = 10_000L // for an older runtime that works on the store
private val TABLES = listOf("bundle", "samples", "requests", "request_samples", "generations", "records")
private const val DEAD = "status IN ('queued', 'running', 'verifying')"

/** A database of an older version becomes one of this version, in one transaction, with everything kept. */
internal class Migration(private val database: Database, private val samples: Samples, private val keys: Keys) {
    /**
     * Creates the tables, or brings them to this version.
     *
     * Throws [StorageException] for a database of a newer version, BusyException while an older runtime works on it.
     */
    fun prepare() {
        val version = version()
        if (version > USER_VERSION) {
            throw StorageException(
                "the store ${database.folder} was made by a newer runtime (version $version): update this one",
            )
        }
        if (version == 0L) database.transaction { create() }
        if (version == 1L) {
            // Another process may have done it meanwhile.
            database.exclusive(WAIT_MS, {}) { if (version() == 1L) fromVersion1() }
        }
    }

    private fun version(): Long = database.long("PRAGMA user_version")!!

    private fun create() {
        if (version() == USER_VERSION) return
        statements().forEach { database.execute(it) }
        database.execute("PRAGMA user_version = $USER_VERSION")
    }

    private fun statements(): List<String> {
        val stream = Migration::class.java.getResourceAsStream("/io/cluemobile/contract/schema.sql")
            ?: throw StorageException("the library was packed without contract/schema.sql: build it again")
        val schema = stream.use { it.readBytes().decodeToString() }
        return schema.lines().joinToString("\n") { it.substringBefore("--") }.split(";").filter { it.isNotBlank() }
    }

    private fun fromVersion1() {
        // Renamed tables do not take the references to them along, and nothing checks references meanwhile.
        database.pragma("foreign_keys = OFF")
        database.pragma("legacy_alter_table = ON")
        try {
            database.transaction {
                for (table in TABLES) database.execute("ALTER TABLE $table RENAME TO old_$table")
                database.execute("DROP INDEX one_serving")
                statements().forEach { database.execute(it) }
                database.execute("PRAGMA user_version = $USER_VERSION")
                copyRows()
                encrypt()
                for (table in TABLES) database.execute("DROP TABLE old_$table")
                val broken = database.rows("PRAGMA foreign_key_check") { it.text(0) }
                if (broken.isNotEmpty()) {
                    throw StorageException(
                        "the store ${database.folder} is damaged: table ${broken[0]} refers to a missing row",
                    )
                }
            }
        } finally {
            database.pragma("legacy_alter_table = OFF")
            database.pragma("foreign_keys = ON")
        }
        // Version 1 kept the pixels as they are: no page and no log may have them any longer.
        database.vacuum()
    }

    private fun copyRows() {
        database.execute("INSERT INTO bundle SELECT key, value FROM old_bundle")
        // Each generation of version 1 was made from the one before it; what was unfinished had died.
        database.execute(
            "INSERT INTO generations (id, request_id, parent, file, sha256, created, serving) SELECT id, request_id, " +
                "CASE WHEN request_id NOTNULL THEN (SELECT max(id) FROM old_generations AS b WHERE b.id < g.id) END, " +
                "file, sha256, created, serving FROM old_generations AS g ORDER BY id",
        )
        database.execute(
            "INSERT INTO requests (id, kind, label, class, status, seed, scalars, samples, base_generation, " +
                "reason, evidence, created, finished) SELECT id, 'class', label, class, " +
                "CASE WHEN $DEAD THEN 'failed' ELSE status END, seed, scalars, " +
                "(SELECT count(*) FROM old_request_samples WHERE request_id = r.id), " +
                "(SELECT parent FROM generations WHERE request_id = r.id), " +
                "CASE WHEN $DEAD THEN 'interrupted' ELSE reason END, evidence, created, " +
                "CASE WHEN $DEAD THEN ? ELSE finished END FROM old_requests AS r ORDER BY id",
            now(),
        )
        // Version 1 named files after requests: new generations come after all of these numbers.
        database.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(id), 0) FROM requests)) " +
                "WHERE name = 'generations'",
        )
        database.execute(
            "INSERT INTO records (id, request_id, phase, record) " +
                "SELECT id, request_id, phase, record FROM old_records ORDER BY id",
        )
    }

    private fun encrypt() {
        for (label in database.longs("SELECT DISTINCT label FROM old_samples").map { it.toInt() }) {
            val keyId = keys.intake(label)
            val wrapper = keys.read(keyId)
            for (id in database.longs("SELECT id FROM old_samples WHERE label = ?", label)) {
                val (content, sample) = database.rows(
                    "SELECT sha256, height, width, channels, pixels, added FROM old_samples WHERE id = ?", id,
                ) {
                    val shape = Shape(it.long(1)!!.toInt(), it.long(2)!!.toInt(), it.long(3)!!.toInt())
                    it.blob(4)!! to NewSample(shape, it.text(0)!!, label, it.text(5)!!, id)
                }.single()
                samples.insert(content, sample, keyId, wrapper)
            }
        }
        database.execute("INSERT INTO request_samples SELECT * FROM old_request_samples")
        // The latest request that has a sample has its key.
        for (request in database.longs("SELECT id FROM requests ORDER BY id")) samples.take(request)
        keys.giveUpUnused()
    }
}
