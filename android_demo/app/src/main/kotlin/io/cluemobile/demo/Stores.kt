package io.cluemobile.demo

import android.graphics.Bitmap
import android.graphics.Color
import io.cluemobile.ForgetStore
import io.cluemobile.Pixels
import io.cluemobile.RequestRow
import io.cluemobile.Status

private val STILL_OPEN = setOf(Status.QUEUED, Status.RUNNING, Status.VERIFYING)

/** What a store holds, for the screen. Blocks for the disk. Throws ClueException. */
fun stockOf(store: ForgetStore): Stock {
    val serving = store.serving()
    val kept = store.generations().filter { it.erased == null }.map { it.id }.toSet()
    val requests = store.requests()
    return Stock(
        classes = store.bundle.classes,
        counts = store.counts(),
        forgotten = store.forgotten().toSet(),
        leastImages = store.bundle.leastImages,
        before = serving.parent?.takeIf { it in kept },
        waiting = requests.any { it.status == Status.QUEUED || it.status == Status.PAUSED },
        latest = requests.lastOrNull { it.status !in STILL_OPEN },
        sealable = requests.lastOrNull { it.status == Status.DONE && it.rolledBack == null && it.sealed == null }?.id,
        receipt = store.receipts().lastOrNull()?.text,
        cost = store.costs.all().lastOrNull { it.phase == "request" },
    )
}

/** The forget accuracies that a request has noted, in percent: before it, at its stops, after it. */
fun accuraciesOf(request: RequestRow): List<Double> {
    val stops = (request.evidence["stops"] as? List<*>).orEmpty().map { (it as? Map<*, *>)?.get("accuracy") }
    val noted = listOf(request.evidence["forget_accuracy_before"]) + stops + request.evidence["forget_accuracy_after"]
    return noted.mapNotNull { (it as? Number)?.toDouble() }
}

/** The pixels as a picture, one for one. */
fun bitmapOf(pixels: Pixels): Bitmap {
    val colours = IntArray(pixels.width * pixels.height) { at ->
        val channel = { index: Int -> pixels.bytes[at * pixels.channels + minOf(index, pixels.channels - 1)].toInt() and 255 }
        Color.rgb(channel(0), channel(1), channel(2))
    }
    return Bitmap.createBitmap(colours, pixels.width, pixels.height, Bitmap.Config.ARGB_8888)
}
