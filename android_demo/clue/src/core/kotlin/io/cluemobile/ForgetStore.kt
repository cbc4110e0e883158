package io.cluemobile

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.pictures.Resize
import io.cluemobile.store.Shape
import io.cluemobile.store.Store
import java.io.FileNotFoundException
import java.io.InputStream
import java.nio.file.NoSuchFileException
import java.nio.file.Path

/** What happens when the weights of a new bundle bring back what was forgotten. */
public enum class UpdatePolicy {
    /** The store is not opened. */
    REFUSE,

    /** The new weights serve; the classes are no longer forgotten. */
    SERVE,

    /** The new weights serve, and what was forgotten is queued to be forgotten again. */
    PENDING,
}

/**
 * A stored sample.
 *
 * @property label index of its class
 * @property sha256 of its pixels, hex
 * @property added when, UTC, ISO 8601
 * @property request the latest request that has it
 */
public data class Sample(
    public val id: Long,
    public val label: Int,
    public val sha256: String,
    public val added: String,
    public val request: Long?,
)

/**
 * A set of weights.
 *
 * @property request the request that made it; null, as [parent] is, for a bundle's
 * @property file its file, there unless it was [erased]
 * @property parent the generation that it was made from
 * @property erased when sealing erased it, UTC, ISO 8601
 */
public data class Generation(
    public val id: Long,
    public val request: Long?,
    public val file: Path,
    public val sha256: String,
    public val created: String,
    public val parent: Long?,
    public val erased: String?,
    public val serving: Boolean,
)

/**
 * The samples, requests, weights, receipts and cost records of one bundle in a private folder.
 *
 * It may be used from several threads; several processes may open the same folder. Every method blocks for the disk and
 * throws [ClueException].
 */
public class ForgetStore internal constructor(internal val store: Store, internal val platform: Platform) : AutoCloseable {
    /** The bundle that it was opened with. */
    public val bundle: ClueBundle get() = store.bundle

    /** The folder. */
    public val folder: Path get() = store.folder

    /** False once it was closed, which a write that failed may do (docs/android.md): then open it again. */
    public val isOpen: Boolean get() = store.database.isOpen

    /** The cost records. */
    public val costs: CostLog = CostLog(store)

    /**
     * Stores images of a class (its name, or index in digits) at the model's input size; returns the ids of the new ones.
     *
     * An image that is there with this label is not stored again. When one cannot be stored, none is.
     */
    public fun add(images: List<Pixels>, label: String): List<Long> {
        val index = bundle.label(label)
        images.forEach(::checkImage)
        val shape = bundle.input.run { Shape(height, width, channels) }
        return store.samples.add(images.map { it.bytes }, shape, index)
    }

    /**
     * Decodes a picture and brings it to the model's size, ready for [add] or a [Classifier].
     *
     * [open] gives the file from its start each time that it is called, null where there is none; it may be another app's, whose
     * permission may have been taken back (`ContentResolver.openInputStream`). [name] is for errors. Throws [ImageException].
     */
    public fun read(name: String, open: () -> InputStream?): Pixels {
        val decoded = platform.images.decode({ opened(name, open) }, name, grey = bundle.color == "L")
        return Resize.fit(decoded, bundle.input.height, bundle.input.width, bundle.fit)
    }

    private fun opened(name: String, open: () -> InputStream?): InputStream = try {
        open()
    } catch (_: FileNotFoundException) {
        null
    } catch (_: NoSuchFileException) {
        null
    } catch (error: SecurityException) {
        throw ImageException("the app may not read the image $name any longer: choose it again", error)
    } catch (error: RuntimeException) { // whatever went wrong in the app that has it
        val reason = error.message ?: error.javaClass.simpleName
        throw ImageException("the app that has the image $name cannot give it ($reason): choose another one", error)
    } ?: throw ImageException("the image $name is not there any longer: choose another one")

    internal fun checkImage(image: Pixels) {
        val wanted = bundle.input.run { listOf(height, width, channels) }
        val found = listOf(image.height, image.width, image.channels)
        if (found != wanted || image.bytes.size != wanted.reduce(Int::times)) {
            throw ImageException("an image is $found with ${image.bytes.size} bytes: it must be $wanted (height, width, channels)")
        }
    }

    /** How many samples each class has, by its name; classes without any are left out. */
    public fun counts(): Map<String, Int> = store.samples.counts().mapKeys { bundle.classes[it.key] }

    /** The samples of a class, or all, oldest first. */
    public fun samples(label: String? = null): List<Sample> = store.samples.listed(label?.let(bundle::label))

    /** Every request, oldest first. */
    public fun requests(): List<RequestRow> = store.requests.all()

    /** One request. */
    public fun request(id: Long): RequestRow = store.requests.get(id)

    /** Every generation of weights, oldest first. */
    public fun generations(): List<Generation> = store.generations()

    /** The generation that serves now. */
    public fun serving(): Generation = store.serving()

    /** The names of the forgotten classes. */
    public fun forgotten(): List<String> = store.forgotten().map(bundle.classes::get)

    /** The receipts, oldest first. */
    public fun receipts(): List<Receipt> = store.receipts()

    override fun close(): Unit = store.close()

    public companion object {
        /**
         * Opens the store in [folder], which is created when it is not there, and carries on a sealing that was interrupted.
         *
         * Throws [StorageException] where it cannot be used or belongs to other classes, [BroughtBackException] as [policy]
         * says for a new bundle whose weights bring back what was forgotten.
         */
        public fun open(
            folder: Path,
            bundle: ClueBundle,
            platform: Platform,
            policy: UpdatePolicy = UpdatePolicy.REFUSE,
        ): ForgetStore = ForgetStore(Store(folder, bundle, platform, policy), platform)
    }
}
