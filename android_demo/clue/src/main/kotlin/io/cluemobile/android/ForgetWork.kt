package io.cluemobile.android

import io.cluemobile.ClueException
import io.cluemobile.Progress
import io.cluemobile.Status
import io.cluemobile.Unlearner
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.sync.Mutex

/** What the shipped services take from the app; its `Application` implements it. */
public interface ClueHost {
    /**
     * The app's unlearner. Called on a background thread, in a process that the system may have started for the service alone: open the
     * store here where it is not open yet. Throws [ClueException].
     */
    public fun unlearner(): Unlearner
}

/** What the services of this process do. */
public sealed interface WorkState {
    /** Nothing has been done yet, or all is done. */
    public data object Idle : WorkState

    /** A request runs; [progress] is null until it tells something. */
    public data class Running(public val progress: Progress?) : WorkState

    /** The latest request ended or paused. */
    public data class Ended(public val progress: Progress.Ended) : WorkState

    /** A request could not run; [sentence] is for the user. */
    public data class Failed(public val sentence: String) : WorkState
}

/** Carries out the queue of a store, for [ForgetService] and [ForgetJobService]; one of them at a time. */
public object ForgetWork {
    private val states = MutableStateFlow<WorkState>(WorkState.Idle)
    private val turn = Mutex()

    /** What is being done: watch it from a screen, which may come and go meanwhile. */
    public val state: StateFlow<WorkState> = states.asStateFlow()

    /**
     * Runs requests until none is left that can run now; true when there is work for later. Who cancels the coroutine pauses the
     * request with a checkpoint.
     */
    internal suspend fun run(host: ClueHost): Boolean {
        if (!turn.tryLock()) return false // the other service has the queue, and all of it
        try {
            states.value = WorkState.Running(null)
            val unlearner = host.unlearner()
            while (true) {
                val id = unlearner.next() ?: return false
                if (!runOne(unlearner, id)) return true
            }
        } catch (error: ClueException) {
            states.value = WorkState.Failed(error.message.orEmpty())
            return false
        } catch (error: CancellationException) {
            states.value = WorkState.Idle
            throw error
        } finally {
            if (states.value is WorkState.Running) states.value = WorkState.Idle
            turn.unlock()
        }
    }

    /** Runs a request; false when it paused, so that the queue does not begin it again at once. */
    private suspend fun runOne(unlearner: Unlearner, id: Long): Boolean {
        var paused = false
        unlearner.run(id).collect { progress ->
            states.value = if (progress is Progress.Ended) WorkState.Ended(progress) else WorkState.Running(progress)
            paused = progress is Progress.Ended && progress.result.status == Status.PAUSED
        }
        return !paused
    }
}
