package io.cluemobile.request

import io.cluemobile.BusyException
import io.cluemobile.ClueException
import io.cluemobile.Progress
import io.cluemobile.Status
import io.cluemobile.StorageException
import io.cluemobile.Unlearner
import io.cluemobile.WorkState
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.sync.Mutex

/** Carries out the queue of a store for several who may ask for it, one at a time; [log] gets what nobody expected. */
internal class QueueWork(private val log: (Exception) -> Unit) {
    private val states = MutableStateFlow(WorkState())
    private val turn = Mutex()

    val state: StateFlow<WorkState> = states.asStateFlow()

    /**
     * Runs every request that can run now once; a refused, failed or paused one does not hold up the others. True when there is
     * work that can be done later. While another carries out the queue it waits for its turn, or unless [wait] returns true at once.
     *
     * [open] is called when it is its turn. What goes wrong ends up in [state]. Who cancels the coroutine pauses the request with
     * a checkpoint.
     */
    suspend fun run(wait: Boolean, open: () -> Unlearner): Boolean {
        if (wait) turn.lock() else if (!turn.tryLock()) return true
        try {
            states.update { WorkState(running = true, accuracies = it.accuracies, ended = it.ended) }
            return explained("") { runAll(open()) }
        } finally {
            states.update { it.copy(running = false, step = null) }
            turn.unlock()
        }
    }

    private suspend fun runAll(unlearner: Unlearner): Boolean {
        val tried = mutableSetOf<Long>()
        var later = false
        while (true) {
            val id = unlearner.next(tried) ?: return later
            tried += id
            if (explained("request $id: ") { runOne(unlearner, id) }) later = true
        }
    }

    /** Runs a request; true when it paused for a while. */
    private suspend fun runOne(unlearner: Unlearner, id: Long): Boolean {
        var later = false
        states.update { it.copy(step = null, accuracies = emptyList(), ended = null) }
        unlearner.run(id).collect { progress ->
            when (progress) {
                is Progress.Step -> states.update { it.copy(step = progress) }
                is Progress.ForgetAccuracy -> states.update { it.copy(accuracies = it.accuracies + progress.percent) }
                is Progress.Ended -> {
                    states.update { it.copy(step = null, ended = progress.result) }
                    later = progress.result.run { status == Status.PAUSED && endsByItself(reason.orEmpty()) }
                }
            }
        }
        return later
    }

    /** [work]; what goes wrong is told, and true when time may mend it: another process has the store, or the disk is full. */
    private suspend fun explained(where: String, work: suspend () -> Boolean): Boolean = try {
        work()
    } catch (error: CancellationException) {
        throw error
    } catch (error: ClueException) {
        tell(where + error.message)
        error is BusyException || error is StorageException
    } catch (error: Exception) {
        log(error)
        tell("${where}an error of the app, which its log has: ${error.message ?: error.javaClass.simpleName}")
        false
    }

    private fun tell(problem: String) = states.update { it.copy(step = null, problem = problem) }
}
