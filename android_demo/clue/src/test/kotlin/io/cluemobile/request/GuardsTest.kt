package io.cluemobile.request

import io.cluemobile.Contract
import io.cluemobile.Device
import io.cluemobile.Energy
import io.cluemobile.EnergyFacts
import io.cluemobile.Options
import io.cluemobile.Platform
import io.cluemobile.Progress
import io.cluemobile.Status
import io.cluemobile.ToyTest
import io.cluemobile.json.JsonSchema
import io.cluemobile.json.asObject
import io.cluemobile.jvm.JvmPlatform
import io.cluemobile.parse
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import java.nio.file.Files

private val EMPTY = emptyMap<String, Any?>()

/** This computer with a temperature, memory and meter that a test sets: it has none that a test could heat up or drain. */
private class SetDevice(real: Device) : Device by real {
    var celsius: Double? = 40.0
    var memory: Long? = null
    var heat: String? = null
    var metered = false
    var joules: Double? = 100.0

    override fun celsius(): Double? = celsius

    override fun tooHot(): String? = heat

    override fun availableMemory(): Long? = memory

    override fun energy(): Energy = object : Energy {
        override val facts = if (metered) EnergyFacts("counter", "board", "measured", null) else null
        override val note = if (metered) null else "no meter"

        override fun joules(): Double? = joules?.takeIf { metered }

        override fun close() = Unit
    }
}

private class SetPlatform(real: Platform, override val device: Device) : Platform by real

/** Heat, memory, budgets, and what the cost records say. */
internal class GuardsTest : ToyTest() {
    private val real = JvmPlatform()
    private val device = SetDevice(real.device)
    override val platform: Platform = SetPlatform(real, device)

    @BeforeEach
    fun fill() {
        toy.add()
    }

    private fun pausedFor(reason: String, id: Long, at: (Progress) -> Unit = {}) {
        val result = toy.run(id, Control(device, at))
        assertEquals(Status.PAUSED, result.status)
        assertTrue(result.reason!!.startsWith(reason), result.reason)
        assertEquals(result.reason, toy.store.request(id).reason)
    }

    @Test
    fun `heat pauses a request, and it goes on once it is five degrees cooler`() {
        val id = toy.submit(options = Options(maxCelsius = 60.0))
        device.celsius = 56.0
        pausedFor("too hot: 56.0 degrees, a request begins at 55", id)
        assertNull(toy.unlearner.next())
        device.celsius = 55.0
        assertEquals(id, toy.unlearner.next())
        device.celsius = null
        device.heat = "the system says so"
        pausedFor("too hot: the system says so", id)
        assertNull(toy.unlearner.next())
        device.heat = null
        assertEquals(Status.DONE, toy.run(id).status)
    }

    @Test
    fun `too little memory pauses before anything is loaded`() {
        val id = toy.submit()
        device.memory = plannedPeak(toy.store.bundle, 19) - 1
        pausedFor("too little memory", id)
        assertNull(toy.unlearner.next())
        device.memory = plannedPeak(toy.store.bundle, 19)
        assertEquals(id, toy.unlearner.next())
        assertEquals(Status.DONE, toy.run(id).status)
    }

    @Test
    fun `a budget of time and one of energy pause, and wait for the user`() {
        device.metered = true
        val seconds = toy.submit(options = Options(maxSeconds = 1e-6))
        pausedFor("over budget", seconds)
        assertNull(toy.unlearner.next())
        toy.unlearner.cancel(seconds)
        val joules = toy.submit(options = Options(maxJoules = 10.0))
        pausedFor("over budget: 12.0 J of 10 J", joules) { if (it is Progress.Step && it.done == 3L) device.joules = 112.0 }
        assertEquals(Status.DONE, toy.run(joules).status)
    }

    @Test
    fun `energy can end the epochs, earlier parts included`() {
        device.metered = true
        val id = toy.submit(options = Options(stopJoules = 10.0, maxJoules = 6.0))
        pausedFor("over budget", id) { if (it is Progress.Step && it.done == 3L) device.joules = 107.0 }
        val result = toy.run(id, Control(device, { if (it is Progress.Step && it.done == 5L) device.joules = 111.0 }))
        assertEquals(true, result.evidence["stopped_early"], result.toString())
        assertEquals(11.0, result.records.last().joules)
    }

    @Test
    fun `the records are what the schema says`() {
        device.metered = true
        val schema = JsonSchema(Contract.json("cost.schema.json"))
        val id = toy.submit()
        toy.run(id, Control(device, { device.joules = device.joules!! + 0.5 }))
        device.metered = false
        val other = toy.submit(options = Options(accuracyAtMost = 100.0))
        toy.run(other)
        val lines = Files.readAllLines(toy.path.resolve("cost.jsonl"))
        assertEquals(toy.store.costs.all().map { it.json }, lines)
        for (line in lines) assertNull(schema.problem(parse(line))?.let { "${it.where}: ${it.problem}" }, line)
        val whole = toy.store.costs.of(id).last()
        val phases = toy.store.costs.of(id).dropLast(1)
        assertTrue(whole.joules!! >= phases.sumOf { it.joules ?: 0.0 } && phases.any { it.joules != null })
        assertTrue(whole.seconds >= phases.sumOf { it.seconds })
        val unmeasured = parse(toy.store.costs.of(other).last().json)
        assertEquals(listOf(null, "no meter"), listOf(unmeasured["energy_j"], unmeasured["energy_note"]))
        val receipts = JsonSchema(withoutTrue(Contract.json("receipt.schema.json")).asObject())
        toy.unlearner.rollback(2)
        for (receipt in toy.store.receipts()) {
            assertNull(receipts.problem(parse(receipt.text))?.let { "${it.where}: ${it.problem}" }, receipt.text)
        }
    }

    /** A schema with the empty one where it has `true`, which means the same. */
    private fun withoutTrue(schema: Any?): Any? = when (schema) {
        is Map<*, *> -> schema.mapValues { (key, value) ->
            if (key ==
                "properties"
            ) value.asObject().mapValues { withoutTrue(it.value.takeIf { it != true } ?: EMPTY) } else withoutTrue(value)
        }
        is List<*> -> schema.map(::withoutTrue)
        else -> schema
    }

    @Test
    fun `a part that was not measured makes the energy of the whole unknown`() {
        device.metered = true
        val id = toy.submit()
        val stop = Control(device, { if (it is Progress.Step) device.joules = 105.0 }, stop = { device.joules == 105.0 })
        assertEquals(Status.PAUSED, toy.run(id, stop).status)
        device.metered = false
        toy.run(id)
        val record = parse(toy.store.costs.of(id).last().json)
        assertEquals(null, record["energy_j"])
        assertEquals(null, record["energy_source"])
    }
}
