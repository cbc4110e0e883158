package io.cluemobile.demo

import android.app.Activity
import android.view.View
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.Spinner
import android.widget.TextView
import io.cluemobile.CostRecord
import io.cluemobile.RequestRow

private const val SHARES = 1000
private const val MEGABYTE = 1e6

/** Draws a [Screen] into the activity's views. */
class Painter(private val activity: Activity) {
    private var lines: List<String> = emptyList()

    fun paint(screen: Screen) {
        text(R.id.problem, screen.problem.orEmpty())
        visible(R.id.problem, screen.problem != null)
        paintClasses(screen)
        paintImage(screen)
        paintProgress(screen)
        paintOutcome(screen)
        paintButtons(screen)
    }

    private fun paintClasses(screen: Screen) {
        val stock = screen.stock ?: return
        val spinner = activity.view<Spinner>(R.id.classes)
        val now = stock.classes.map { name ->
            val line = if (name in stock.forgotten) R.string.class_forgotten_line else R.string.class_line
            activity.getString(line, name, stock.counts[name] ?: 0)
        }
        if (now != lines) {
            lines = now
            spinner.adapter = ArrayAdapter(activity, android.R.layout.simple_spinner_dropdown_item, now)
        }
        if (spinner.selectedItemPosition != screen.chosen) spinner.setSelection(screen.chosen)
        val count = stock.counts[stock.classes[screen.chosen]] ?: 0
        text(R.id.few_images, activity.getString(R.string.few_images, stock.leastImages))
        visible(R.id.few_images, count in 1 until stock.leastImages)
    }

    private fun paintImage(screen: Screen) {
        val seen = screen.latest
        visible(R.id.image, seen != null)
        activity.view<ImageView>(R.id.image).setImageBitmap(seen?.picture)
        val line = if (seen?.forgotten == true) R.string.prediction_forgotten else R.string.prediction
        text(
            R.id.prediction,
            if (seen == null) activity.getString(R.string.no_image) else activity.getString(line, seen.name, seen.percent),
        )
    }

    private fun paintProgress(screen: Screen) {
        val step = screen.work.step
        activity.view<ProgressBar>(R.id.progress).apply {
            visibility = if (screen.work.running) View.VISIBLE else View.INVISIBLE
            isIndeterminate = step == null
            if (step != null) progress = (SHARES * step.done / maxOf(1, step.total)).toInt()
        }
        text(
            R.id.step,
            when {
                step != null -> activity.getString(R.string.step, step.epoch + 1, step.done, step.total)
                screen.work.running -> activity.getString(R.string.preparing)
                else -> activity.getString(R.string.not_running)
            },
        )
        // whatever the method tells: of CLUE the energy loss and the KL divergence
        val metrics = step?.metrics.orEmpty().map { (name, value) -> activity.getString(R.string.metric, name, value) }
        text(R.id.metrics, metrics.joinToString("\n"))
        val latest = screen.accuracies.lastOrNull()
        text(R.id.accuracy, latest?.let { activity.getString(R.string.accuracy, it) }.orEmpty())
        visible(R.id.chart, screen.accuracies.size > 1)
        activity.view<AccuracyChart>(R.id.chart).percentages = screen.accuracies
    }

    private fun paintOutcome(screen: Screen) {
        val ended = screen.stock?.latest?.takeUnless { screen.work.running }
        text(R.id.ended, ended?.let(::endedLine).orEmpty())
        val (before, after) = listOf("forget_accuracy_before", "forget_accuracy_after").map { ended?.evidence?.get(it) as? Number }
        visible(R.id.before_after, before != null)
        text(R.id.before_after, activity.getString(R.string.before_after, percent(before), percent(after)))
        val cost = screen.stock?.cost
        visible(R.id.cost, cost != null)
        text(R.id.cost, cost?.let(::costLine).orEmpty())
    }

    private fun endedLine(request: RequestRow): String {
        val reason = request.reason
        return if (reason == null) {
            activity.getString(R.string.ended, request.id, request.status.word)
        } else {
            activity.getString(R.string.ended_because, request.id, request.status.word, reason)
        }
    }

    private fun costLine(cost: CostRecord): String {
        val unknown = activity.getString(R.string.unknown)
        val (start, end) = cost.celsiusStart to cost.celsiusEnd
        val heat = if (start == null || end == null) unknown else activity.getString(R.string.celsius, start, end)
        val energy = cost.joules?.let { activity.getString(R.string.joules, it) } ?: unknown
        return activity.getString(R.string.cost, cost.seconds, cost.peakMemoryBytes / MEGABYTE, energy, heat)
    }

    private fun paintButtons(screen: Screen) {
        val stock = screen.stock
        val idle = stock != null && !screen.work.running
        listOf(R.id.take_photo, R.id.import_images, R.id.use_samples).forEach { enabled(it, stock != null) }
        enabled(R.id.forget, idle)
        text(R.id.forget, activity.getString(if (stock?.waiting == true) R.string.go_on else R.string.forget))
        enabled(R.id.pause, screen.work.running)
        enabled(R.id.cancel, screen.work.running || stock?.waiting == true)
        enabled(R.id.share_receipt, stock?.receipt != null)
        enabled(R.id.roll_back, idle && stock?.before != null)
        enabled(R.id.seal, idle && stock?.sealable != null)
    }

    private fun percent(value: Number?): String =
        value?.let { activity.getString(R.string.percent, it.toDouble()) } ?: activity.getString(R.string.unknown)

    private fun text(id: Int, text: String) {
        activity.view<TextView>(id).apply { if (this.text.toString() != text) this.text = text }
    }

    private fun visible(id: Int, visible: Boolean) {
        activity.view<View>(id).visibility = if (visible) View.VISIBLE else View.GONE
    }

    private fun enabled(id: Int, enabled: Boolean) {
        activity.view<Button>(id).isEnabled = enabled
    }
}
