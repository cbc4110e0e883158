package io.cluemobile.run

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.GoldenOutput
import io.cluemobile.bundle.Program
import io.cluemobile.engine.Engine
import io.cluemobile.engine.Floats
import io.cluemobile.engine.load
import io.cluemobile.random.drawGolden
import kotlin.math.abs

/** [error]: largest difference over largest expected value of an output; [ok]: it is at most [tolerance]. */
public class GoldenResult internal constructor(
    public val program: String,
    public val output: String,
    public val error: Double,
    public val tolerance: Double,
) {
    public val ok: Boolean get() = error <= tolerance
}

/**
 * Run every program that the engine has a file for on seeded inputs and compare with what eager PyTorch gave
 * (contract/golden.md): one result for each output.
 *
 * @throws io.cluemobile.ClueException for an unusable program or golden file, or where the engine has no program at all.
 */
public fun ClueBundle.checkGolden(engine: Engine): List<GoldenResult> {
    val here = programs.values.filter { engine.name in it.files }.ifEmpty { programs.values.toList() }
    return here.flatMap { program ->
        val stored = WeightsFile(file(program.golden.file))
        val outputs = program.outputs.associate { it.name to Floats.zeros(it.shape) }
        engine.load(this, program).use { it.run(goldenInputs(this, program, stored), outputs) }
        program.golden.outputs.map { (name, output) ->
            if (name !in stored.keys) fail("${program.golden.file} has no output $name")
            GoldenResult(program.name, name, difference(outputs.getValue(name), output, stored.read(name)), output.tolerance)
        }
    }
}

/** The golden inputs of a program by port; [stored] are the arrays of its golden file. */
internal fun goldenInputs(bundle: ClueBundle, program: Program, stored: WeightsFile): Map<String, Floats> =
    program.inputs.withIndex().associate { (number, port) ->
        val array = Floats.zeros(port.shape)
        var at = 0
        program.golden.inputs.getValue(port.name).forEachIndexed { index, draw ->
            val part = if (draw.distribution == "stored") {
                if ("input.${port.name}" !in stored.keys) {
                    bundle.fail("golden input ${port.name} of program ${program.name} is not stored")
                }
                stored.read("input.${port.name}").toArray()
            } else {
                drawGolden(draw, program.golden.seed, number, index)
            }
            if (part.size != draw.length) bundle.fail("golden input ${port.name} of program ${program.name} has ${part.size} elements")
            array.put(at, part)
            at += part.size
        }
        port.name to array
    }

private fun difference(device: Floats, output: GoldenOutput, golden: Floats): Double {
    val count = (device.size + output.stride - 1) / output.stride
    if (count != golden.size) return Double.POSITIVE_INFINITY
    var difference = 0.0
    var scale = 0.0
    for (i in 0 until count) {
        val found = device[i * output.stride].toDouble()
        val wanted = golden[i].toDouble()
        if (!found.isFinite() || !wanted.isFinite()) return Double.POSITIVE_INFINITY
        difference = maxOf(difference, abs(found - wanted))
        scale = maxOf(scale, abs(wanted))
    }
    return if (scale > 0) difference / scale else if (difference > 0) Double.POSITIVE_INFINITY else 0.0
}
