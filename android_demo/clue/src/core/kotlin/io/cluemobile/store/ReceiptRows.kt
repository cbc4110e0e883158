package io.cluemobile.store

import io.cluemobile.Receipt
import io.cluemobile.files.atomicWrite
import io.cluemobile.files.sha256
import io.cluemobile.receipts.FIRST
import io.cluemobile.receipts.Make
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path

/** The receipts: a row and a file `receipts/ID.json` each, numbered from 1 and chained by SHA-256. */
internal class ReceiptRows(private val database: Database) {
    val folder: Path = database.folder.resolve("receipts")

    /** Makes and inserts the next receipt; returns its number. [writeFiles] writes its file after that. */
    fun add(kind: String, request: Long?, make: Make): Long = database.transaction {
        val last = database.rows("SELECT id, receipt FROM receipts ORDER BY id DESC LIMIT 1") {
            it.long(0)!! to it.text(1)!!
        }.firstOrNull()
        val number = (last?.first ?: 0) + 1
        val previous = last?.second?.let { sha256(it.toByteArray()) } ?: FIRST
        database.execute(
            "INSERT INTO receipts (id, request_id, kind, receipt) VALUES (?, ?, ?, ?)",
            number, request, kind, make(previous, number),
        )
        number
    }

    /** Every receipt, oldest first. */
    fun all(): List<Receipt> =
        database.rows("SELECT id, kind, request_id, receipt FROM receipts ORDER BY id") {
            Receipt(it.long(0)!!, it.text(1)!!, it.long(2), it.text(3)!!)
        }

    /** Writes the files that are missing. Throws StorageException; the rows are there all the same. */
    fun writeFiles() {
        for (receipt in all()) {
            val path = folder.resolve("${digits(receipt.number)}.json")
            if (!Files.exists(path)) atomicWrite(path, sequenceOf(ByteBuffer.wrap(receipt.text.toByteArray())))
        }
    }
}
