package io.cluemobile.request

import io.cluemobile.Generation
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.bundle.Role
import io.cluemobile.engine.Engine
import io.cluemobile.engine.Floats
import io.cluemobile.engine.Session
import io.cluemobile.engine.load
import io.cluemobile.run.BatchClassifier
import io.cluemobile.run.Images
import io.cluemobile.run.WeightsFile

/**
 * Predictions with whatever generation of weights serves at the time of the call; one call at a time. Programs and weights
 * are loaded on first use; new weights are read into the same arrays.
 */
internal class Serving(private val bundle: ClueBundle, private val engine: Engine) : AutoCloseable {
    private val sessions = HashMap<String, Session>()
    private val classifiers = HashMap<String, BatchClassifier>()
    private val state = HashMap<String, Floats>()
    private var sha256 = ""

    /** Logits [N, K] of images. Throws ClueException for unusable weights or programs. */
    @Synchronized
    fun logits(images: Images, generation: Generation): Array<FloatArray> {
        use(generation)
        val batch = bundle.programs.getValue("predict").batch
        // A single image left over costs less in predict_1 than in a batch filled up.
        val full = if (images.count % batch == 1) images.count - 1 else images.count
        return logits("predict", images, 0 until full) + logits("predict_1", images, full until images.count)
    }

    private fun logits(name: String, images: Images, positions: IntRange): Array<FloatArray> {
        if (positions.isEmpty()) return emptyArray()
        return classifier(name).logits(state::getValue, images, positions.toList().toIntArray())
    }

    private fun use(generation: Generation) {
        if (generation.sha256 == sha256) return
        val file = WeightsFile.open(generation.file, generation.sha256, bundle)
        sha256 = "" // until all of them are read
        for ((name, value) in bundle.values) {
            if (value.role != Role.STATE) continue
            file.readInto(value.weightsKey!!, state.getOrPut(name) { Floats.zeros(value.shape) })
        }
        sha256 = generation.sha256
    }

    private fun classifier(name: String): BatchClassifier = classifiers.getOrPut(name) {
        val program = bundle.programs.getValue(name)
        BatchClassifier(program, sessions.getOrPut(name) { engine.load(bundle, program) })
    }

    @Synchronized
    override fun close() {
        sessions.values.forEach(Session::close)
        sessions.clear()
        classifiers.clear()
    }
}
