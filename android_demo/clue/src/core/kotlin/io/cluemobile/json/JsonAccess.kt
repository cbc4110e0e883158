package io.cluemobile.json

/*
 * Reading of JSON that a schema has checked: a missing or other member is a mistake in this library then, so plain casts.
 */

internal typealias JsonObject = Map<String, Any?>

@Suppress("UNCHECKED_CAST")
internal fun Any?.asObject(): JsonObject = this as JsonObject

internal fun JsonObject.obj(key: String): JsonObject = getValue(key).asObject()

internal fun JsonObject.text(key: String): String = getValue(key) as String

internal fun JsonObject.whole(key: String): Long = getValue(key) as Long

internal fun JsonObject.number(key: String): Double = (getValue(key) as kotlin.Number).toDouble()

internal fun JsonObject.numberOrNull(key: String): Double? = (this[key] as kotlin.Number?)?.toDouble()

internal fun JsonObject.list(key: String): List<Any?> = getValue(key) as List<*>

internal fun JsonObject.objects(key: String): List<JsonObject> = list(key).map { it.asObject() }

internal fun JsonObject.texts(key: String): List<String> = list(key).map { it as String }

/** Sides of an array; a whole number beyond the range of Int becomes the largest Int, which later checks refuse. */
internal fun JsonObject.shape(key: String): List<Int> = list(key).map { clampToInt(it as Long) }

internal fun JsonObject.int(key: String): Int = clampToInt(whole(key))

private fun clampToInt(value: Long): Int = value.coerceIn(Int.MIN_VALUE.toLong(), Int.MAX_VALUE.toLong()).toInt()
