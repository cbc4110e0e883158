package io.cluemobile.demo

import android.app.Application
import android.graphics.Bitmap
import android.net.Uri
import io.cluemobile.ClueException
import io.cluemobile.ForgetRequest
import io.cluemobile.Pixels
import io.cluemobile.Progress
import io.cluemobile.SealPlan
import io.cluemobile.Status
import io.cluemobile.android.ForgetService
import io.cluemobile.android.ForgetWork
import io.cluemobile.android.WorkState
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import java.io.ByteArrayOutputStream
import java.io.FileNotFoundException
import java.io.InputStream

/** What the screen shows and does. Nothing here blocks the caller; a problem ends up as a sentence in [screen]. */
class DemoModel(private val application: Application) {
    val clue = Clue(application)
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Main.immediate)
    private val screens = MutableStateFlow(Screen())
    private val turn = Mutex()

    val screen: StateFlow<Screen> = screens.asStateFlow()

    init {
        work { }
        scope.launch { ForgetWork.state.collect(::follow) }
    }

    fun choose(index: Int) {
        screens.update { it.copy(chosen = index) }
    }

    /** Stores images under the chosen class and classifies the last of them. */
    fun add(images: List<Uri>) = work { opened ->
        val pixels = images.map { uri -> opened.store.read(uri.lastPathSegment ?: "the image") { stream(uri) } }
        keep(opened, pixels)
    }

    /** The same for a photo. */
    fun add(photo: Bitmap) = work { opened ->
        val png = ByteArrayOutputStream().also { photo.compress(Bitmap.CompressFormat.PNG, 100, it) }.toByteArray()
        keep(opened, listOf(opened.store.read("the photo") { png.inputStream() }))
    }

    /** The same for the images of the chosen class that come with the app. */
    fun addSamples() = work { opened ->
        val folder = "samples/${chosenClass(opened)}"
        val names = application.assets.list(folder).orEmpty()
        if (names.isEmpty()) throw ClueException("the app has no images in assets/$folder: import some")
        keep(opened, names.sorted().map { name -> opened.store.read(name) { application.assets.open("$folder/$name") } })
    }

    /** Queues the forgetting of the chosen class and starts the service that does it. */
    fun forget() = work { opened ->
        opened.unlearner.submit(ForgetRequest.ofClass(chosenClass(opened)))
        screens.update { it.copy(accuracies = emptyList(), ended = null, step = null) }
        ForgetService.start(application)
    }

    fun pause() {
        ForgetService.pause(application)
    }

    /** Goes on with what waits or was paused. */
    fun resume() {
        ForgetService.start(application)
    }

    /** Cancels what runs, waits or was paused. */
    fun cancel() = work { opened ->
        val open = setOf(Status.QUEUED, Status.RUNNING, Status.VERIFYING, Status.PAUSED)
        opened.store.requests().filter { it.status in open }.forEach { opened.unlearner.cancel(it.id) }
    }

    fun rollBack() = work { opened ->
        screens.value.stock?.before?.let(opened.unlearner::rollback)
        classifyAgain(opened)
    }

    /** Tells [ask] what making the latest request final would erase. */
    fun sealPlan(ask: (SealPlan) -> Unit) = work { opened ->
        val plan = screens.value.stock?.sealable?.let(opened.unlearner::sealPlan) ?: return@work
        scope.launch { ask(plan) }
    }

    fun seal(plan: SealPlan) = work { opened -> opened.unlearner.seal(plan.request) }

    /** Carries out [task] away from the main thread, one after the other, then shows what the store holds. */
    private fun work(task: (Clue.Opened) -> Unit) {
        scope.launch(Dispatchers.IO) {
            turn.withLock {
                try {
                    val opened = clue.open()
                    task(opened)
                    val stock = stockOf(opened.store)
                    screens.update { it.copy(stock = stock, problem = null) }
                } catch (error: ClueException) {
                    screens.update { it.copy(problem = error.message) }
                }
            }
        }
    }

    private fun keep(opened: Clue.Opened, pixels: List<Pixels>) {
        if (pixels.isEmpty()) return
        opened.store.add(pixels, chosenClass(opened))
        show(opened, pixels.last())
    }

    private var shown: Pixels? = null

    private fun show(opened: Clue.Opened, pixels: Pixels) {
        val answer = opened.classifier.predict(listOf(pixels)).single()
        shown = pixels
        val seen = Seen(bitmapOf(pixels), answer.name.orEmpty(), 100 * (answer.probability ?: 0.0), answer.forgotten)
        screens.update { it.copy(latest = seen) }
    }

    private fun classifyAgain(opened: Clue.Opened) {
        shown?.let { show(opened, it) }
    }

    private fun chosenClass(opened: Clue.Opened): String = opened.store.bundle.classes[screens.value.chosen]

    private fun stream(uri: Uri): InputStream = try {
        application.contentResolver.openInputStream(uri)
    } catch (error: SecurityException) { // the permission was taken back
        throw ClueException("the app may not read this image any longer: choose it again", error)
    } catch (_: FileNotFoundException) {
        null
    } ?: throw ClueException("this image is not there any longer: choose another one")

    private fun follow(state: WorkState) {
        when (state) {
            is WorkState.Idle -> screens.update { it.copy(running = false, step = null) }
            is WorkState.Failed -> screens.update { it.copy(running = false, step = null, problem = state.sentence) }
            is WorkState.Running -> screens.update { shown ->
                when (val progress = state.progress) {
                    is Progress.Step -> shown.copy(running = true, step = progress)
                    is Progress.ForgetAccuracy -> shown.copy(running = true, accuracies = shown.accuracies + progress.percent)
                    else -> shown.copy(running = true)
                }
            }
            is WorkState.Ended -> {
                screens.update { it.copy(running = false, step = null, ended = state.progress.result) }
                work(::classifyAgain)
            }
        }
    }
}
