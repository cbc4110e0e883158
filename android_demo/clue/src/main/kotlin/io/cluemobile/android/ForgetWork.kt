package io.cluemobile.android

import android.util.Log
import io.cluemobile.ClueException
import io.cluemobile.Unlearner
import io.cluemobile.WorkState
import io.cluemobile.request.QueueWork
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.withContext

/** What the shipped services take from the app; its `Application` implements it. */
public interface ClueHost {
    /**
     * The app's unlearner. Called on a background thread, in a process that the system may have started for the service alone: open the
     * store here where it is not open yet. Throws [ClueException].
     */
    public fun unlearner(): Unlearner
}

/** Carries out the queue of a store, for [ForgetService], [ForgetJobService] and what else an app schedules; one of them at a time. */
public object ForgetWork {
    private val queue = QueueWork { Log.e("clue", "the queue", it) }

    /** What is being done: watch it from a screen, which may come and go meanwhile. */
    public val state: StateFlow<WorkState> = queue.state

    /**
     * Runs every request that can run now once; a refused, failed or paused one does not hold up the others. True when there is
     * work that can be done later. While another carries out the queue it waits for its turn, or unless [wait] returns true at once.
     *
     * What goes wrong ends up in [state]. Who cancels the coroutine pauses the request with a checkpoint.
     */
    public suspend fun run(host: ClueHost, wait: Boolean = false): Boolean =
        withContext(Dispatchers.Default) { queue.run(wait, host::unlearner) }
}
