package io.cluemobile.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.util.AttributeSet
import android.view.View

/** A line of percentages, the first at the left; TalkBack reads the figures. */
class AccuracyChart(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val density = resources.displayMetrics.density
    private val line = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = context.getColor(R.color.accent)
        strokeWidth = 2 * density
        style = Paint.Style.STROKE
    }
    private val dot = Paint(line).apply { style = Paint.Style.FILL }
    private val frame = Paint(line).apply {
        alpha = 60
        strokeWidth = density
    }

    /** From 0 to 100. */
    var percentages: List<Double> = emptyList()
        set(value) {
            if (field == value) return
            field = value
            val spoken = value.joinToString { context.getString(R.string.percent, it) }
            contentDescription = context.getString(R.string.chart_description, spoken)
            invalidate()
        }

    override fun onDraw(canvas: Canvas) {
        val margin = 6 * density
        val bottom = height - margin
        canvas.drawRect(margin, margin, width - margin, bottom, frame)
        val step = (width - 2 * margin) / maxOf(1, percentages.size - 1)
        val points = percentages.mapIndexed { index, percent ->
            margin + index * step to bottom - (bottom - margin) * (percent / 100).toFloat()
        }
        points.zipWithNext { (x, y), (nextX, nextY) -> canvas.drawLine(x, y, nextX, nextY, line) }
        points.forEach { (x, y) -> canvas.drawCircle(x, y, 3 * density, dot) }
    }
}
