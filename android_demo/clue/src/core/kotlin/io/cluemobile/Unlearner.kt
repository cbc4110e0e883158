package io.cluemobile

import io.cluemobile.engine.Engine
import io.cluemobile.request.Control
import io.cluemobile.request.aims
import io.cluemobile.request.carryOut
import io.cluemobile.request.checkEnergy
import io.cluemobile.request.checkSeed
import io.cluemobile.request.estimate
import io.cluemobile.request.nextRequest
import io.cluemobile.store.NewRequest
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.isActive
import kotlinx.coroutines.withContext

/**
 * Makes the classifier of a store forget. Requests run one at a time; the old weights serve until one is done.
 *
 * Every method but those that give a flow blocks for the disk; all throw [ClueException].
 */
public class Unlearner(private val forgetStore: ForgetStore, private val engine: Engine) {
    private val store = forgetStore.store
    private val bundle = store.bundle

    /**
     * [submit] and [run] at once, before what is queued; nothing is queued when another request runs.
     *
     * The flow is cold: collecting it runs the request, on a thread of its own. Who cancels the collecting coroutine pauses
     * the request with a checkpoint, and [run] or [resume] goes on to the same weights, bit for bit; so it does when the
     * process was killed. To end a request for good, [cancel] it. The flow's last element is [Progress.Ended]; it throws
     * [ClueException] where the request could not run or something broke: then the old weights go on serving.
     */
    public fun forget(request: ForgetRequest): Flow<Progress> = running { control ->
        store.exclusive { carryOut(store, engine, submit(request), control) }
    }

    /** Runs a queued request, or lets a paused one go on, as [forget] does. */
    public fun run(id: Long): Flow<Progress> = running { carryOut(store, engine, id, it) }

    /** Lets a paused request go on, as [forget] does; refused for one that is not paused. */
    public fun resume(id: Long): Flow<Progress> = running { control ->
        val status = store.statusNow(id)
        if (status != Status.PAUSED) {
            throw ClueException("request $id is ${status.word}: only a paused one can be resumed")
        }
        carryOut(store, engine, id, control)
    }

    private fun running(work: (Control) -> RequestResult): Flow<Progress> = channelFlow {
        val scope = this
        val result = withContext(Dispatchers.IO) {
            work(Control(forgetStore.platform.device, progress = { scope.trySend(it) }, stop = { !scope.isActive }))
        }
        send(Progress.Ended(result))
    }.buffer(Channel.UNLIMITED) // who is slow to look must not hold the request up

    /**
     * Queues a request; returns its id.
     *
     * Throws [ClueException] for what is not known or out of range, a class without samples, a sample that an unfinished
     * request has, an option that this device cannot keep.
     */
    public fun submit(request: ForgetRequest): Long {
        val kind = if (request.samples == null) "class" else "samples"
        val aims = aims(bundle, kind, request.options)
        val scalars = bundle.mergedScalars(aims + request.scalars)
        val seed = checkSeed(request.seed)
        if (request.options.needEnergy.isNotEmpty()) {
            forgetStore.platform.device.energy().use { checkEnergy(request.options, it.joules() != null) }
        }
        val label = request.label?.let(bundle::label)
        val name = label?.let(bundle.classes::get)
        val samples = request.samples ?: store.samples.ids(label!!)
        if (label != null && samples.isEmpty()) throw ClueException("no samples of '$name' are stored: add some first")
        return store.requests.create(NewRequest(kind, label, name, seed, scalars, request.options, samples))
    }

    /**
     * The request whose turn it is: the oldest that is queued, or paused by what is over (a kill, a stop, heat, too little
     * memory); null where there is none. What is over budget waits for the user.
     *
     * Who carries out the queue gives those that were refused or paused in this pass as [passedOver], so that they do not hold
     * up the others.
     */
    public fun next(passedOver: Set<Long> = emptySet()): Long? = nextRequest(store, forgetStore.platform.device, passedOver)

    /**
     * Cancels a request; true when it has ended, false when the run that has it was asked to end it: it does so after the
     * operation that it is at, one of another process within a second. Throws [TransitionException] when it has ended already.
     */
    public fun cancel(id: Long): Boolean {
        val status = store.statusNow(id)
        if ((status == Status.RUNNING || status == Status.VERIFYING) && store.requests.askCancel(id)) {
            store.cancelling += id
            return false
        }
        store.cancel(id)
        return true
    }

    /**
     * Queues a request like one that has ended, with a new seed unless one is given; returns its id.
     *
     * Throws [ClueException] when it has not ended, or its samples were erased.
     */
    public fun retry(id: Long, seed: Long? = null): Long {
        val old = store.requests.get(id)
        if (old.status !in setOf(Status.DONE, Status.FAILED, Status.CANCELLED)) {
            throw ClueException("request $id is ${old.status.word}: resume it, or cancel it before you retry it")
        }
        val samples = store.requests.samples(id)
        if (samples.size != old.samples) {
            throw ClueException("the samples of request $id were erased: add them again and forget anew")
        }
        return store.requests.create(
            NewRequest(old.kind, old.label, old.className, checkSeed(seed), old.scalars, old.options, samples, id),
        )
    }

    /**
     * Lets a kept generation serve; returns the requests that have no effect any longer. Nothing is erased.
     *
     * Throws [ClueException] when there is none of that id, it was erased, or it serves already.
     */
    public fun rollback(generation: Long): List<Long> = store.rollback(generation)

    /** What [seal] would erase and what it cannot. Throws as [seal] does. */
    public fun sealPlan(id: Long): SealPlan = store.sealPlan(id)

    /**
     * Makes a request final: erases its samples, their keys, the weights from before it and the bundle's own; returns what
     * could not be erased. [tell] is given each step in words.
     *
     * Throws [ClueException] when the request is not done, has no effect, was sealed, or an unfinished request has its
     * samples; and when a step fails: the rest is then done by the next open, or by calling it again.
     */
    public fun seal(id: Long, tell: (String) -> Unit = {}): List<NotErased> = store.seal(id, tell)

    /** What [forget] would take at most, without running it. Throws [ClueException] as [submit] does. */
    public fun estimate(request: ForgetRequest): Estimate {
        val samples = request.samples?.size ?: store.samples.ids(bundle.label(request.label!!)).size
        return estimate(store, engine, samples, bundle.mergedScalars(request.scalars))
    }
}

/** Something that sealing could not erase, and why. */
public data class NotErased(public val path: String, public val reason: String)

/**
 * What sealing a request erases.
 *
 * @property samples of the request that are still there
 * @property classSamples more of its class, which stay
 * @property later requests that lose samples which they share with it
 * @property files generations, checkpoints and the bundle's weights
 * @property bytes their size
 * @property notErased what cannot be erased
 */
public data class SealPlan(
    public val request: Long,
    public val samples: Int,
    public val classSamples: Int,
    public val later: List<Long>,
    public val files: List<String>,
    public val bytes: Long,
    public val notErased: List<NotErased>,
)
