package io.cluemobile.run

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Program
import io.cluemobile.engine.Engine
import io.cluemobile.engine.Floats
import io.cluemobile.engine.Session
import io.cluemobile.ort.OrtEngine
import java.nio.file.Path

/** A meter that only counts: what costs are made of is tested with the store. */
internal class Counter(override var steps: Long = 0) : RunMeter {
    val worked = LinkedHashMap<String, Int>()

    override fun loaded(seconds: Double, phase: String?) = check(seconds >= 0)

    override fun <T> measure(phase: String, batch: Int?, step: Boolean, work: () -> T): T =
        work().also { if (step) steps++ }

    override fun worked(program: Program, times: Int) {
        worked.merge(program.name, times, Int::plus)
    }
}

/** An engine that lets [told] look at what each run is given and gives. */
internal class Recording(
    private val engine: Engine,
    private val told: (program: Program, inputs: Map<String, Floats>, outputs: Map<String, Floats>) -> Unit,
) : Engine by engine {
    override fun load(file: Path, program: Program): Session {
        val session = engine.load(file, program)
        return object : Session by session {
            override fun run(inputs: Map<String, Floats>, outputs: Map<String, Floats>) {
                session.run(inputs, outputs)
                told(program, inputs, outputs)
            }
        }
    }
}

internal fun served(bundle: ClueBundle): WeightsFile =
    WeightsFile.open(bundle.root.resolve(bundle.weights.file), bundle.weights.sha256, bundle)

internal fun oneThread(): Engine = OrtEngine.create(1)

/** A copy of every value's content. */
internal fun Values.copies(): Map<String, Floats> = all().mapValues { Floats.of(it.value.shape, it.value.toArray()) }

internal fun Floats.bits(): List<Int> = toArray().map { it.toRawBits() }

/** Images and labels of a file that tests/android/reference.py or the contract's scenarios have. */
internal fun labelled(file: Path, images: String, label: Int, count: Int): Labelled {
    val weights = WeightsFile(file)
    val (_, height, width, channels) = checkNotNull(weights.shape(images))
    val bytes = weights.bytes(images, "U8").array()
    return Labelled(ArrayImages(count, height, width, channels, bytes), IntArray(count) { label })
}
