package io.cluemobile

import io.cluemobile.engine.Engine
import io.cluemobile.request.Serving
import io.cluemobile.run.ArrayImages
import kotlin.math.exp

/** What a classifier does where the best class of an image was forgotten. */
public enum class ForgottenChoice {
    /** Answers it, and says so. */
    TELL,

    /** Answers the best other class, its probability among these. */
    HIDE,

    /** Answers no class. */
    REJECT,
}

/**
 * What a classifier says of an image.
 *
 * @property label index of the best class; null, as [name] and [probability] are, where a forgotten class was rejected
 * @property probability from 0 to 1, the softmax of the logits
 * @property forgotten whether the best class was forgotten
 */
public data class Answer(
    public val label: Int?,
    public val name: String?,
    public val probability: Double?,
    public val forgotten: Boolean,
)

/** Classifies by the weights that serve at the moment of the call. May be used from several threads; it blocks. */
public class Classifier(private val store: ForgetStore, engine: Engine) : AutoCloseable {
    private val serving = Serving(store.bundle, engine)

    /**
     * An answer for each image at the model's input size.
     *
     * Throws [ClueException] for images of another size, weights that were changed on the disk, or where hiding leaves no
     * class to answer with.
     */
    public fun predict(images: List<Pixels>, forgotten: ForgottenChoice = ForgottenChoice.TELL): List<Answer> {
        val gone = store.store.forgotten().toSet()
        if (forgotten == ForgottenChoice.HIDE && gone.size == store.bundle.classes.size) {
            throw ClueException("every class was forgotten: nothing is left to answer with; choose TELL or REJECT")
        }
        return logits(images).map { answer(it, store.bundle.classes, gone, forgotten) }
    }

    /** The logits of each image at the model's input size, one for each class. Throws [ClueException]. */
    public fun logits(images: List<Pixels>): List<FloatArray> {
        images.forEach(store::checkImage)
        val shape = store.bundle.input
        val size = shape.height * shape.width * shape.channels
        val bytes = ByteArray(size * images.size)
        images.forEachIndexed { i, image -> image.bytes.copyInto(bytes, i * size) }
        val all = ArrayImages(images.size, shape.height, shape.width, shape.channels, bytes)
        while (true) {
            val generation = store.serving()
            try {
                return serving.logits(all, generation).asList()
            } catch (error: StorageException) {
                // Sealing may have erased these weights since they were looked up: then others serve by now.
                if (store.serving().id == generation.id) throw error
            }
        }
    }

    override fun close(): Unit = serving.close()
}

/** An answer for a row of logits; the first of equal ones is the best. */
internal fun answer(logits: FloatArray, classes: List<String>, gone: Set<Int>, choice: ForgottenChoice): Answer {
    val scores = DoubleArray(logits.size) {
        if (choice == ForgottenChoice.HIDE && it in gone) Double.NEGATIVE_INFINITY else logits[it].toDouble()
    }
    val largest = scores.max()
    val odds = DoubleArray(scores.size) { exp(scores[it] - largest) }
    val best = odds.indices.first { odds[it] == odds.max() }
    if (best in gone && choice == ForgottenChoice.REJECT) return Answer(null, null, null, true)
    return Answer(best, classes[best], odds[best] / odds.sum(), best in gone)
}
