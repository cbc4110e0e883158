package io.cluemobile.request

import io.cluemobile.Device
import io.cluemobile.RequestRow
import io.cluemobile.Status
import io.cluemobile.run.Paused
import io.cluemobile.store.INTERRUPTED
import io.cluemobile.store.Store

/** Reasons (their beginnings) of pauses that end by themselves; over budget waits for the user. */
private val GOES_ON = listOf(INTERRUPTED, STOPPED, TOO_HOT, TOO_LITTLE_MEMORY)

/** Whether a pause for this reason ends by itself. */
internal fun endsByItself(reason: String): Boolean = GOES_ON.any(reason::startsWith)

/** The oldest request that is queued, or paused by what is over, [passedOver] left out; null when there is none. */
internal fun nextRequest(store: Store, device: Device, passedOver: Set<Long>): Long? {
    val active = setOf(Status.RUNNING, Status.VERIFYING)
    // A request whose process died is running for its row until somebody gets the lock.
    store.requests.all().firstOrNull { it.status in active }?.let { store.statusNow(it.id) }
    return store.requests.all().firstOrNull { request ->
        request.id !in passedOver &&
            (request.status == Status.QUEUED || (request.status == Status.PAUSED && goesOn(store, device, request)))
    }?.id
}

private fun goesOn(store: Store, device: Device, request: RequestRow): Boolean {
    val reason = request.reason.orEmpty()
    if (!endsByItself(reason)) return false
    return try {
        if (reason.startsWith(TOO_HOT)) Thermal(request.options.celsiusAtMost, device).checkStart()
        if (reason.startsWith(TOO_LITTLE_MEMORY)) {
            checkMemory(plannedPeak(store.bundle, request.samples), device.availableMemory())
        }
        true
    } catch (_: Paused) {
        false
    }
}
