package io.cluemobile

import io.cluemobile.bundle.ClueBundle
import io.cluemobile.files.Safetensors
import io.cluemobile.json.StrictJson
import io.cluemobile.jvm.JvmPlatform
import io.cluemobile.ort.OrtEngine
import io.cluemobile.request.Control
import io.cluemobile.request.carryOut
import java.nio.file.Path

/** The object of a JSON text. */
@Suppress("UNCHECKED_CAST")
internal fun parse(text: String): Map<String, Any?> = StrictJson.parse(text.toByteArray(), 1 shl 24) as Map<String, Any?>

/** contract/scenarios/images.safetensors: 24 images of each class. */
internal class ToyImages {
    private val path = Contract.folder.resolve("scenarios/images.safetensors")
    private val classes = Safetensors.readHeader(path).tensors.mapValues { (_, entry) ->
        val (count, height, width, channels) = entry.shape
        val bytes = Safetensors.read(path, entry)
        val size = height * width * channels
        List(count) { Pixels(height, width, channels, bytes.copyOfRange(it * size, (it + 1) * size)) }
    }

    fun has(name: String): Boolean = name in classes

    fun of(name: String): List<Pixels> = classes.getValue(name)
}

/** A store of a copy of the toy bundle in an empty folder, with ONNX Runtime on one thread. */
internal class Toy(private val folder: Path, val platform: Platform = JvmPlatform()) : AutoCloseable {
    val root: Path = Contract.toy(folder)
    val images = ToyImages()
    val engine = OrtEngine.create(1)
    val path: Path = folder.resolve("store")
    var store: ForgetStore = open()
        private set
    val unlearner: Unlearner get() = Unlearner(store, engine)

    private fun open(platform: Platform = this.platform) = ForgetStore.open(path, ClueBundle.open(root), platform)

    /** Closes the store and opens it again. */
    fun reopen() {
        store.close()
        store = open()
    }

    /** Stores the first [count] images of a class under its name; returns the ids of the new ones. */
    fun add(name: String = "cat", count: Int = 19): List<Long> = store.add(images.of(name).take(count), name)

    fun submit(name: String = "cat", options: Options = Options()): Long =
        unlearner.submit(ForgetRequest.ofClass(name, seed = 5, options = options))

    fun run(id: Long, control: Control = Control(platform.device)): RequestResult = carryOut(store.store, engine, id, control)

    /** Adds the samples of a class, forgets it, returns the request. */
    fun forget(name: String = "cat"): Long {
        add(name)
        return submit(name, Options(accuracyAtMost = 100.0)).also { run(it) }
    }

    override fun close(): Unit = store.close()
}
