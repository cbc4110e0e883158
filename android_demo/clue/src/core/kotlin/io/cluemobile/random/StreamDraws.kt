package io.cluemobile.random

import io.cluemobile.bundle.GoldenDraw
import io.cluemobile.bundle.RandomStream
import io.cluemobile.engine.Floats

/**
 * One draw of a manifest's stream for each position, one after the other into [out]; [repeat] is the number of the iteration of the
 * `repeat` loops around (contract/plan.md, "Random streams").
 */
internal fun drawStream(random: RandomStream, seed: Long, epoch: Int, positions: IntArray, repeat: Long, out: Floats) {
    val draws = Draws(seed, random.stream, epoch.toLong())
    val onehot = random.distribution == "onehot"
    val drawn = (if (onehot) random.shape.dropLast(1) else random.shape).fold(1, Math::multiplyExact)
    val block = repeat * ((drawn + 3L) / 4)
    val row = FloatArray(if (onehot) drawn * random.classes else drawn)
    positions.forEachIndexed { b, position ->
        val at = position.toLong()
        when (random.distribution) {
            "normal" -> draws.normal(at, drawn, row, blockOffset = block)
            "uniform" -> draws.uniform(at, drawn, random.low, random.high, row, blockOffset = block)
            else -> {
                row.fill(0f)
                val classes = draws.integers(at, drawn, random.classes.toLong(), block)
                for (i in classes.indices) row[i * random.classes + classes[i].toInt()] = 1f
            }
        }
        out.put(b * row.size, row)
    }
}

/** Draw number [index] of input number [port] as contract/golden.md says; not for "stored". */
internal fun drawGolden(draw: GoldenDraw, seed: Long, port: Int, index: Int): FloatArray {
    val out = FloatArray(draw.length)
    val draws = Draws(seed, Streams.GOLDEN, port.toLong())
    val position = index.toLong()
    when (draw.distribution) {
        "normal" -> {
            draws.normal(position, draw.length, out)
            for (i in out.indices) out[i] = (draw.a + draw.b * out[i].toDouble()).toFloat()
        }
        "uniform" -> draws.uniform(position, draw.length, draw.a, draw.b, out)
        "bernoulli" -> {
            draws.uniform(position, draw.length, 0.0, 1.0, out)
            for (i in out.indices) out[i] = if (out[i] < draw.a.toFloat()) 1f else 0f
        }
        "constant" -> out.fill(draw.a.toFloat())
        else -> {
            val width = draw.a.toInt()
            for (row in 0 until draw.length / width) out[row * width + row % width] = 1f
        }
    }
    return out
}
