package io.cluemobile.store

import io.cluemobile.StorageException
import io.cluemobile.json.JsonException
import io.cluemobile.json.JsonText
import io.cluemobile.json.StrictJson

private const val MOST_BYTES = 64 shl 20

/** A JSON object as text for a row, keys sorted. */
internal fun jsonRow(value: Map<String, Any?>): String = JsonText.of(value.toSortedMap())

/** The JSON object of a row of the store [about]. Throws [StorageException] when the database is damaged. */
internal fun parseRow(text: String?, about: Any): Map<String, Any?> {
    val value = try {
        StrictJson.parse((text ?: "{}").toByteArray(), MOST_BYTES)
    } catch (error: JsonException) {
        throw StorageException("the store $about is damaged: a row has no JSON (${error.message})", error)
    }
    @Suppress("UNCHECKED_CAST")
    return value as? Map<String, Any?> ?: throw StorageException("the store $about is damaged: a row has no JSON object")
}
