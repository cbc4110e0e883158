package io.cluemobile

import io.cluemobile.json.JsonException
import io.cluemobile.json.StrictJson
import io.cluemobile.store.Store

/**
 * The cost of a phase of a request, or of the whole (phase "request"); null where something was not measured, never 0.
 *
 * @property request the request's id
 * @property phase a phase of the plan, "verify" or "request"
 * @property seconds time inside the phase's operations; of the request: from its start until its record was written
 * @property processorSeconds of all threads of the process
 * @property steps programs that the plan ran
 * @property peakMemoryBytes largest resident memory of the process
 * @property joules energy, idle power included
 * @property celsiusStart temperature when it began, degrees
 * @property celsiusEnd temperature when it ended, degrees
 * @property json the whole record, contract/cost.schema.json
 */
public data class CostRecord(
    public val request: Long,
    public val phase: String,
    public val seconds: Double,
    public val processorSeconds: Double,
    public val steps: Int,
    public val peakMemoryBytes: Long,
    public val joules: Double?,
    public val celsiusStart: Double?,
    public val celsiusEnd: Double?,
    public val json: String,
) {
    internal companion object {
        private const val MOST_BYTES = 1 shl 20

        /** The record of its JSON. Throws [StorageException] when it is none. */
        fun of(json: String): CostRecord = try {
            val found = StrictJson.parse(json.toByteArray(), MOST_BYTES) as Map<*, *>
            fun number(name: String) = found[name] as Number?
            CostRecord(
                request = number("request_id")!!.toLong(),
                phase = found["phase"] as String,
                seconds = number("wall_s")!!.toDouble(),
                processorSeconds = number("cpu_s")!!.toDouble(),
                steps = number("steps")!!.toInt(),
                peakMemoryBytes = number("peak_mem_bytes")!!.toLong(),
                joules = number("energy_j")?.toDouble(),
                celsiusStart = number("thermal_start")?.toDouble(),
                celsiusEnd = number("thermal_end")?.toDouble(),
                json = json,
            )
        } catch (error: JsonException) {
            throw StorageException("a cost record is damaged: ${error.message}", error)
        } catch (error: RuntimeException) { // casts and nulls of what is not there
            throw StorageException("a cost record is damaged: it is no record of this version", error)
        }
    }
}

/** The cost records of a store. */
public class CostLog internal constructor(private val store: Store) {
    /** Every record, oldest first. Throws [ClueException]. */
    public fun all(): List<CostRecord> = store.requests.records().map(CostRecord::of)

    /** The records of one request, its phases in order, then "request". */
    public fun of(request: Long): List<CostRecord> = all().filter { it.request == request }
}
