package io.cluemobile.demo

import android.app.Application
import android.graphics.Bitmap
import android.net.Uri
import io.cluemobile.ClueException
import io.cluemobile.ForgetRequest
import io.cluemobile.Pixels
import io.cluemobile.SealPlan
import io.cluemobile.Status
import io.cluemobile.WorkState
import io.cluemobile.android.ForgetService
import io.cluemobile.android.ForgetWork
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

    /** Stores images under the chosen class and classifies the last of them; those that cannot be read are told, the others kept. */
    fun add(images: List<Uri>) = work { opened ->
        val bad = mutableListOf<ClueException>()
        val pixels = images.mapNotNull { uri ->
            try {
                opened.store.read(uri.lastPathSegment ?: "the image") { application.contentResolver.openInputStream(uri) }
            } catch (error: ClueException) {
                bad += error
                null
            }
        }
        keep(opened, pixels)
        if (bad.isNotEmpty()) throw ClueException(application.getString(R.string.not_read, bad.size, images.size, bad[0].message), bad[0])
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
        ForgetService.start(application)
    }

    fun pause() = work { ForgetService.pause(application) }

    /** Goes on with what waits or was paused. */
    fun resume() = work { ForgetService.start(application) }

    /** Cancels what runs, waits or was paused. */
    fun cancel() = work { opened ->
        val open = setOf(Status.QUEUED, Status.RUNNING, Status.VERIFYING, Status.PAUSED)
        opened.store.requests().filter { it.status in open }.forEach { opened.unlearner.cancel(it.id) }
    }

    fun rollBack() = work { opened ->
        screens.value.stock?.before?.let(opened.unlearner::rollback)
        classifyAgain(opened)
    }

    /** Looks up what making the latest request final would erase, for the user to decide. */
    fun askToSeal() = work { opened ->
        val plan = screens.value.stock?.sealable?.let(opened.unlearner::sealPlan)
        screens.update { it.copy(sealPlan = plan) }
    }

    /** The user does not want it. */
    fun dropSealing() = screens.update { it.copy(sealPlan = null) }

    fun seal(plan: SealPlan) {
        dropSealing()
        work { opened -> opened.unlearner.seal(plan.request) }
    }

    /** Carries out [task] away from the main thread, one after the other, then shows what the store holds. */
    private fun work(task: (Clue.Opened) -> Unit) {
        scope.launch(Dispatchers.IO) {
            turn.withLock {
                try {
                    val opened = clue.open()
                    val problem = problemOf { task(opened) }
                    val stock = stockOf(clue.open().store) // a write that failed may have closed it
                    screens.update { it.copy(stock = stock, problem = problem) }
                } catch (error: ClueException) {
                    screens.update { it.copy(problem = error.message) }
                }
            }
        }
    }

    private fun problemOf(task: () -> Unit): String? = try {
        task()
        null
    } catch (error: ClueException) {
        error.message
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

    /** Shows what the services do; once they have ended, also what the store holds now. */
    private fun follow(state: WorkState) {
        val before = screens.value.work
        screens.update { it.copy(work = state) }
        val isOver = (state.ended != null && state.ended != before.ended) || (before.running && !state.running)
        if (isOver || (state.problem != null && state.problem != before.problem)) {
            work { opened ->
                classifyAgain(opened)
                state.problem?.let { throw ClueException(it) }
            }
        }
    }
}
