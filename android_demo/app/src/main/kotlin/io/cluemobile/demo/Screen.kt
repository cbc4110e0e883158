package io.cluemobile.demo

import android.graphics.Bitmap
import io.cluemobile.CostRecord
import io.cluemobile.RequestRow
import io.cluemobile.SealPlan
import io.cluemobile.WorkState

/** Everything that the screen shows. */
data class Screen(
    /** Null until the store is open. */
    val stock: Stock? = null,
    /** The class that is chosen, by its place among the bundle's. */
    val chosen: Int = 0,
    /** The latest image, with what the classifier says of it. */
    val latest: Seen? = null,
    /** What the services do. */
    val work: WorkState = WorkState(),
    /** What making a request final would erase: asked, and not answered yet. */
    val sealPlan: SealPlan? = null,
    /** What went wrong, as a sentence. */
    val problem: String? = null,
) {
    /** The forget accuracy in percent as the request goes on, the one before it first; without one that runs, of the latest. */
    val accuracies: List<Double> get() = if (work.running) work.accuracies else stock?.latest?.let(::accuraciesOf).orEmpty()
}

/** What the store holds. */
data class Stock(
    val classes: List<String>,
    val counts: Map<String, Int>,
    val forgotten: Set<String>,
    val leastImages: Int,
    /** The generation that a rollback would serve. */
    val before: Long?,
    /** A request waits or is paused. */
    val waiting: Boolean,
    /** The latest request that ended or paused. */
    val latest: RequestRow?,
    /** The request that can be made final. */
    val sealable: Long?,
    /** The latest receipt's text. */
    val receipt: String?,
    /** The cost of the latest request. */
    val cost: CostRecord?,
)

/** An image and the answer to it. */
data class Seen(val picture: Bitmap, val name: String, val percent: Double, val forgotten: Boolean)
