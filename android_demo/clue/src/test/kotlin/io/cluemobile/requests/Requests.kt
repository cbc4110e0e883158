package io.cluemobile.requests

import io.cluemobile.Contract
import io.cluemobile.ForgetRequest
import io.cluemobile.ForgetStore
import io.cluemobile.Options
import io.cluemobile.Pixels
import io.cluemobile.Progress
import io.cluemobile.RequestResult
import io.cluemobile.Status
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.engine.Engine
import io.cluemobile.jvm.JvmPlatform
import io.cluemobile.ort.OrtEngine
import io.cluemobile.request.Control
import io.cluemobile.request.carryOut
import io.cluemobile.run.Images
import io.cluemobile.run.labelled
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import java.nio.file.Path

internal fun openStore(folder: Path, bundle: ClueBundle): ForgetStore = ForgetStore.open(folder, bundle, JvmPlatform())

/** Images as an app gives them to the store. */
internal fun Images.pixels(): List<Pixels> =
    (0 until count).map { Pixels(height, width, channels, ByteArray(imageSize).also { bytes -> read(it, bytes) }) }

/** The first [count] images that the scenarios have of a class of the toy bundle. */
internal fun toyImages(name: String, count: Int): List<Pixels> =
    labelled(Contract.folder.resolve("scenarios/images.safetensors"), name, 0, count).images.pixels()

/** Carries a flow out; how it ended. */
internal fun Flow<Progress>.result(): RequestResult = runBlocking { (toList().last() as Progress.Ended).result }

internal fun engine(): Engine = OrtEngine.create(1)

/** Carries a request out and does something after so many operations: the request waits, as it does not for a flow's collector. */
internal fun ForgetStore.runWith(id: Long, operations: Long, engine: Engine = engine(), work: () -> Unit) {
    val progress = { told: Progress -> if (told is Progress.Step && told.done == operations) work() }
    carryOut(store, engine, id, Control(platform.device, progress))
}

/** Carries a request out and pauses it after so many operations: exactly then, as a flow's collector cannot, which sees each late. */
internal fun ForgetStore.pauseAfter(id: Long, operations: Long, engine: Engine = engine()) {
    var done = 0L
    val progress = { told: Progress -> if (told is Progress.Step) done = told.done }
    val result = carryOut(store, engine, id, Control(platform.device, progress, stop = { done >= operations }))
    assertEquals(Status.PAUSED, result.status, result.reason)
}

/** A request of the toy bundle that may be long: its stop is never taken, and its steps are small enough for many. */
internal fun longRequest(epochs: Int, options: Options = Options(accuracyAtMost = 100.0)): ForgetRequest {
    val scalars = mapOf("epochs" to epochs.toDouble(), "check_every" to 0.0, "lr" to 1e-4)
    return ForgetRequest.ofClass("cat", seed = 5, scalars = scalars, options = options)
}
