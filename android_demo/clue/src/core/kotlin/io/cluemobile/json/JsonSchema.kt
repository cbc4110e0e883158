package io.cluemobile.json

/** What is wrong with a JSON value: [where] it stands, such as `programs/step/batch`, and the [problem] in words. */
internal class SchemaProblem(val where: String, val problem: String)

/**
 * A JSON Schema, as far as the schemas of contract/ go: a keyword that this does not know is refused when the schema is made, so
 * that none is ever passed over.
 */
internal class JsonSchema(private val root: JsonObject) {
    private val patterns = HashMap<String, Regex>()

    init {
        checkKeywords(root)
    }

    /** The first thing that is wrong with a [value] that [StrictJson] gave, null when it fits. */
    fun problem(value: Any?): SchemaProblem? = problem(value, root, "")

    private fun problem(value: Any?, schema: JsonObject, where: String): SchemaProblem? {
        (schema["\$ref"] as String?)?.let { reference -> problem(value, resolve(reference), where)?.let { return it } }
        typeProblem(value, schema)?.let { return SchemaProblem(where.ifEmpty { "top level" }, it) }
        for (branches in listOf("oneOf", "anyOf")) {
            val fitting = (schema[branches] as List<*>?)?.count { problem(value, it.asObject(), where) == null } ?: continue
            if (fitting == 0 || branches == "oneOf" && fitting > 1) {
                return SchemaProblem(where.ifEmpty { "top level" }, "${shown(value)} has none of the forms that are possible here")
            }
        }
        return when (value) {
            is Map<*, *> -> objectProblem(value.asObject(), schema, where)
            is List<*> -> itemsProblem(value, schema, where)
            else -> null
        }
    }

    private fun typeProblem(value: Any?, schema: JsonObject): String? {
        val types = schema["type"]
        if (types != null && (if (types is List<*>) types else listOf(types)).none { fits(value, it as String) }) {
            return "${shown(value)} is not of type $types"
        }
        if ("const" in schema && !same(value, schema["const"])) return "${shown(value)} is not ${shown(schema["const"])}"
        if ("enum" in schema && schema.list("enum").none { same(value, it) }) {
            return "${shown(value)} is not one of ${schema.list("enum").joinToString { shown(it) }}"
        }
        return when (value) {
            is kotlin.Number -> rangeProblem(value.toDouble(), schema)
            is String -> textProblem(value, schema)
            is List<*> -> listProblem(value, schema)
            else -> null
        }
    }

    private fun rangeProblem(value: Double, schema: JsonObject): String? {
        schema.numberOrNull("minimum")?.let { if (value < it) return "$value is less than $it" }
        schema.numberOrNull("maximum")?.let { if (value > it) return "$value is more than $it" }
        schema.numberOrNull("exclusiveMinimum")?.let { if (value <= it) return "$value is not more than $it" }
        return null
    }

    private fun textProblem(value: String, schema: JsonObject): String? {
        val length = value.codePointCount(0, value.length)
        if ("minLength" in schema && length < schema.whole("minLength")) return "a text is too short"
        val pattern = schema["pattern"] as String? ?: return null
        val regex = patterns.getOrPut(pattern) { Regex(pattern) }
        return if (regex.containsMatchIn(value)) null else "${shown(value)} does not match $pattern"
    }

    private fun listProblem(value: List<*>, schema: JsonObject): String? = when {
        "minItems" in schema && value.size < schema.whole("minItems") -> "a list has ${value.size} items, fewer than possible"
        "maxItems" in schema && value.size > schema.whole("maxItems") -> "a list has ${value.size} items, more than possible"
        schema["uniqueItems"] == true && value.toSet().size != value.size -> "a list has an item twice"
        else -> null
    }

    private fun objectProblem(value: JsonObject, schema: JsonObject, where: String): SchemaProblem? {
        val properties = schema["properties"]?.asObject().orEmpty()
        for (key in (schema["required"] as List<*>?).orEmpty()) {
            if (key !in value.keys) return SchemaProblem(where.ifEmpty { "top level" }, "'$key' is missing")
        }
        if ("minProperties" in schema && value.size < schema.whole("minProperties")) {
            return SchemaProblem(where.ifEmpty { "top level" }, "it has too few entries")
        }
        for ((key, inner) in value) {
            val inside = if (where.isEmpty()) key else "$where/$key"
            schema["propertyNames"]?.let { names -> problem(key, names.asObject(), inside)?.let { return it } }
            val expected = properties[key] ?: schema["additionalProperties"] ?: true
            if (expected == false) return SchemaProblem(where.ifEmpty { "top level" }, "${shown(key)} is not expected here")
            if (expected != true) problem(inner, expected.asObject(), inside)?.let { return it }
        }
        return null
    }

    private fun itemsProblem(value: List<*>, schema: JsonObject, where: String): SchemaProblem? {
        val items = schema["items"]?.asObject() ?: return null
        value.forEachIndexed { i, item -> problem(item, items, if (where.isEmpty()) "$i" else "$where/$i")?.let { return it } }
        return null
    }

    private fun resolve(reference: String): JsonObject =
        reference.removePrefix("#/").split('/').fold(root) { schema, part -> schema.obj(part) }

    private fun checkKeywords(schema: JsonObject) {
        val unknown = schema.keys - KNOWN
        require(unknown.isEmpty()) { "a schema has the keywords $unknown, which this validator does not know" }
        val named = listOf("properties", "\$defs").flatMap { schema[it]?.asObject()?.values.orEmpty() }
        val forms = listOf("oneOf", "anyOf").flatMap { schema[it] as List<*>? ?: emptyList() }
        val inner = listOf("items", "propertyNames", "additionalProperties").map { schema[it] }.filterIsInstance<Map<*, *>>()
        (named + forms + inner).forEach { checkKeywords(it.asObject()) }
    }

    companion object {
        private val KNOWN = setOf(
            "\$defs", "\$id", "\$ref", "\$schema", "title", "description", "type", "const", "enum", "oneOf", "anyOf", "properties",
            "required", "additionalProperties", "propertyNames", "minProperties", "items", "minItems", "maxItems", "uniqueItems",
            "minLength", "pattern", "minimum", "maximum", "exclusiveMinimum",
        )

        /** A schema of contract/, which the library carries. */
        fun ofContract(name: String): JsonSchema = JsonSchema(StrictJson.parse(contractFile(name), 1 shl 20).asObject())

        private fun fits(value: Any?, type: String): Boolean = when (type) {
            "object" -> value is Map<*, *>
            "array" -> value is List<*>
            "string" -> value is String
            "boolean" -> value is Boolean
            "null" -> value == null
            "integer" -> value is Long
            "number" -> value is Long || value is Double
            else -> false
        }

        private fun same(one: Any?, other: Any?): Boolean = when {
            one is kotlin.Number && other is kotlin.Number -> one.toDouble() == other.toDouble()
            one is List<*> && other is List<*> -> one.size == other.size && one.indices.all { same(one[it], other[it]) }
            else -> one == other
        }

        private fun shown(value: Any?): String = when (value) {
            is String -> "'${value.take(100)}'"
            is Map<*, *> -> "an object"
            is List<*> -> "a list"
            else -> "$value"
        }
    }
}

/** The bytes of a file of contract/ that the library carries as a resource. */
internal fun contractFile(name: String): ByteArray =
    checkNotNull(JsonSchema::class.java.getResourceAsStream("/io/cluemobile/contract/$name")) {
        "the library was packed without contract/$name"
    }.use { it.readBytes() }
