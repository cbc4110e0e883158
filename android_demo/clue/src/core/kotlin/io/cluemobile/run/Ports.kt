package io.cluemobile.run

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Port
import io.cluemobile.bundle.Program
import io.cluemobile.bundle.Role
import io.cluemobile.engine.Floats
import io.cluemobile.plan.Place
import io.cluemobile.plan.RunNode
import io.cluemobile.random.Draws
import io.cluemobile.random.Streams
import io.cluemobile.random.augmentation
import io.cluemobile.random.cropFlip
import io.cluemobile.random.drawStream

/** Joins the ports of programs to values, batches, scalars and random numbers (contract/plan.md, "Programs"). */
internal class Ports(private val bundle: ClueBundle, private val job: Job, private val values: Values) {
    private val images = job.samples.images
    private val pixels = PixelWriter(images)
    private val moved = ByteArray(images.imageSize)
    private val buffers = HashMap<List<Any>, Floats>()

    /** The array that an input port reads in this run. */
    fun input(port: Port, node: RunNode, place: Place): Floats {
        val name = node.bind[port.name] ?: port.binds
        if (port.role == Role.STATE || port.role == Role.CARRY) return values.current(name)
        val array = buffer(port, "input", port.role, name)
        if (port.role == Role.SCALAR) {
            array[0] = job.scalars.getValue(name).toFloat()
            return array
        }
        val positions = positions(place)
        when {
            port.role == Role.CACHE -> gather(values.current(name), positions, array)
            port.role == Role.RANDOM ->
                drawStream(bundle.randoms.getValue(name), job.seed, place.epoch, positions, place.repeat, array)
            name == "onehot" -> onehot(positions, array)
            else -> images(positions, place, array)
        }
        return array
    }

    /** The array that an output port writes in this run. */
    fun output(port: Port, node: RunNode): Floats = when (port.role) {
        Role.STATE, Role.CARRY -> values.target(node.bind[port.name] ?: port.binds)
        else -> buffer(port, "output", port.name)
    }

    /** What a run has written becomes the content of the values; returns the metrics. */
    fun takeOver(program: Program, node: RunNode, place: Place, outputs: Map<String, Floats>): Map<String, Double> {
        val metrics = LinkedHashMap<String, Double>()
        for (port in program.outputs) {
            val name = node.bind[port.name] ?: port.binds
            val array = outputs.getValue(port.name)
            when (port.role) {
                Role.STATE, Role.CARRY -> values.written(name)
                Role.CACHE -> scatter(array, positions(place), values.current(name))
                Role.METRIC -> metrics[port.name] = array[0].toDouble()
                else -> Unit
            }
        }
        return metrics
    }

    private fun positions(place: Place): IntArray =
        checkNotNull(place.positions) { "such a program stands in a batches loop: the bundle's checks" }

    /** One array for all ports of a kind: programs do not run at the same time. */
    private fun buffer(port: Port, vararg key: Any): Floats = buffers.getOrPut(listOf(*key, port.shape)) { Floats.zeros(port.shape) }

    private fun images(positions: IntArray, place: Place, into: Floats) {
        val draws = if (place.augment) Draws(job.seed, Streams.AUGMENT, place.epoch.toLong()) else null
        positions.forEachIndexed { b, position ->
            pixels.write(position, into, b) { image ->
                if (draws == null) return@write image
                val move = augmentation(draws, position.toLong())
                cropFlip(image, images.height, images.width, images.channels, move, moved)
                moved
            }
        }
    }

    private fun onehot(positions: IntArray, into: Floats) {
        into.fill(0f)
        val classes = bundle.classes.size
        positions.forEachIndexed { b, position -> into[b * classes + job.samples.labels[position]] = 1f }
    }

    private fun gather(cache: Floats, positions: IntArray, into: Floats) {
        val row = into.size / positions.size
        positions.forEachIndexed { b, position -> into.copyRange(b * row, cache, position * row, row) }
    }

    /** A sample that stands twice in a filled batch has the same row twice; the last one is kept. */
    private fun scatter(rows: Floats, positions: IntArray, cache: Floats) {
        val row = rows.size / positions.size
        positions.forEachIndexed { b, position -> cache.copyRange(position * row, rows, b * row, row) }
    }
}
