package io.cluemobile.power

import io.cluemobile.EnergyFacts
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** What meters make of the figures that systems give, the wrong ones above all. */
class MetersTest {
    private var now = 0.0

    private fun current(vararg readings: BatteryReading, seconds: Double = 1.0): CurrentMeter {
        val left = readings.iterator()
        val meter = CurrentMeter(left::next) { now }
        repeat(readings.size) {
            meter.sample()
            now += seconds
        }
        return meter
    }

    private fun battery(
        microamperes: Long? = -500_000,
        millivolts: Int? = 4000,
        nanowattHours: Long? = null,
        plugged: Boolean? = false,
    ) = BatteryReading(microamperes, millivolts, nanowattHours, plugged)

    @Test
    fun `current times voltage is added up by trapezoids, whatever its sign`() {
        for (sign in listOf(-1, 1)) {
            val meter = current(battery(sign * 500_000L), battery(sign * 1_000_000L), battery(sign * 1_000_000L))
            // 2 W to 4 W in a second, then a second at 4 W
            assertEquals(7.0, meter.joules!!, 1e-9)
            assertNull(meter.problem)
        }
    }

    @Test
    fun `what a current cannot be trusted for makes the figure null, with the reason`() {
        val wrong = mapOf(
            battery(microamperes = null) to "no current",
            battery(millivolts = null) to "no voltage",
            battery(microamperes = 450) to "another unit",
            battery(microamperes = -450_000_000) to "another unit",
            battery(millivolts = 4) to "another unit",
            battery(millivolts = 4_000_000) to "another unit",
            battery(plugged = true) to "plugged in",
            battery(plugged = null) to "does not say",
            battery(microamperes = 500_000) to "changed its sign",
        )
        for ((reading, part) in wrong) {
            val meter = current(battery(), reading, battery())
            assertNull(meter.joules, part)
            assertTrue(part in meter.problem.orEmpty(), meter.problem)
        }
    }

    @Test
    fun `nothing is filled in where readings are missing`() {
        assertNull(current(battery(), battery(), seconds = 11.0).joules)
        assertNotNull(current(battery(), battery(), seconds = 9.0).joules)
    }

    @Test
    fun `a battery's counter tells what it lost`() {
        val readings = listOf(10_000_000L, 10_000_000L, 9_000_000L).map { battery(nanowattHours = it) }.iterator()
        val meter = BatteryCounterMeter(readings::next)
        meter.sample()
        meter.sample()
        assertEquals(0.0, meter.joules!!, 0.0)
        meter.sample()
        assertEquals(3.6, meter.joules!!, 1e-9)
    }

    @Test
    fun `a battery's counter that rises, is missing, or belongs to a charging device tells nothing`() {
        for (second in listOf(battery(nanowattHours = 11), battery(), battery(nanowattHours = 9, plugged = true))) {
            val readings = listOf(battery(nanowattHours = 10), second).iterator()
            val meter = BatteryCounterMeter(readings::next)
            meter.sample()
            meter.sample()
            assertNull(meter.joules)
            assertNotNull(meter.problem)
        }
    }

    @Test
    fun `rails are added up, and none may be missing`() {
        fun after(vararg readings: Map<String, Long?>?): RailsMeter {
            val left = readings.iterator()
            return RailsMeter(left::next).also { meter -> repeat(readings.size) { meter.sample() } }
        }
        assertEquals(3.5, after(mapOf("cpu" to 1_000_000, "ram" to 7), mapOf("cpu" to 4_000_000, "ram" to 500_007)).joules!!, 1e-9)
        val broken = mapOf(
            after(null) to "did not answer",
            after(mapOf("cpu" to 1L), mapOf("cpu" to null)) to "gave no reading",
            after(mapOf("cpu" to 1L), mapOf("cpu" to 0L)) to "set back",
            after(mapOf("cpu" to 1L), mapOf("cpu" to 2L, "ram" to 1L)) to "changed",
        )
        for ((meter, part) in broken) {
            assertNull(meter.joules)
            assertTrue(part in meter.problem.orEmpty(), meter.problem)
        }
    }

    @Test
    fun `the first source that works is taken, and without one every reason is told`() {
        val facts = EnergyFacts("source", "scope", "measured", hz = null)
        val good = Opened.Found(CurrentMeter({ battery() }) { now }, facts, "averages")
        val bad = Opened.Found(CurrentMeter({ battery(plugged = true) }) { now }, facts)
        firstThatWorks(listOf({ Opened.Missing("no monitors") }, { bad }, { good })).use { energy ->
            assertEquals(facts, energy.facts)
            assertEquals("averages", energy.note)
            now += 2
            assertEquals(4.0, energy.joules()!!, 1e-9)
        }
        firstThatWorks(listOf({ Opened.Missing("no monitors") }, { bad })).use { energy ->
            assertNull(energy.facts)
            assertNull(energy.joules())
            assertTrue(energy.note!!.startsWith("no monitors; ") && "plugged in" in energy.note!!, energy.note)
        }
    }

    @Test
    fun `a source with a rate is read by itself`() {
        var readings = 0
        val meter = CurrentMeter({ battery().also { readings++ } }) { System.nanoTime() / 1e9 }
        MeteredEnergy(meter, EnergyFacts("source", "scope", "measured", hz = 100.0)).use {
            val until = System.nanoTime() + 5_000_000_000
            while (synchronized(meter) { readings } < 3 && System.nanoTime() < until) Thread.sleep(5)
        }
        assertTrue(readings >= 3)
        val ended = readings
        Thread.sleep(50)
        assertTrue(readings <= ended + 1, "it goes on after it was closed")
    }
}
