package io.cluemobile.android

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.graphics.drawable.Icon
import android.os.Build
import android.os.IBinder
import io.cluemobile.Progress
import io.cluemobile.clue.R
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

/**
 * Carries out waiting requests now, with a notification that shows how far they are and can pause them. Start it from a screen that the
 * user sees: [start]. Watch [ForgetWork.state]. When the system ends it, or the process dies, [ForgetJobService] goes on later.
 *
 * The app's `Application` must be a [ClueHost].
 */
public class ForgetService : Service() {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)
    private var running: Job? = null

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onCreate() {
        super.onCreate()
        val channel = NotificationChannel(CHANNEL, getString(R.string.clue_channel), NotificationManager.IMPORTANCE_LOW)
        service<NotificationManager>().createNotificationChannel(channel)
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        if (intent?.action == PAUSE) {
            running?.cancel() ?: stopSelf()
            return START_NOT_STICKY
        }
        show(notification(null))
        if (running?.isActive != true) begin()
        return START_NOT_STICKY
    }

    private fun begin() {
        val host = application as? ClueHost ?: error("${application.javaClass.name} must implement ClueHost for ForgetService")
        ForgetJobService.schedule(this)
        val watcher = scope.launch {
            ForgetWork.state.collect { state ->
                if (state is WorkState.Running) {
                    service<NotificationManager>().notify(ID, notification(state.progress))
                }
            }
        }
        running = scope.launch { ForgetWork.run(host) }.also { job ->
            job.invokeOnCompletion {
                watcher.cancel()
                stopForeground(STOP_FOREGROUND_REMOVE)
                stopSelf()
            }
        }
    }

    /** The system's limit on services of this type: six hours a day from Android 15 on. */
    override fun onTimeout(startId: Int, fgsType: Int) {
        running?.cancel()
        stopSelf()
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }

    private fun show(notification: Notification) {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) {
            startForeground(ID, notification, ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC)
        } else {
            startForeground(ID, notification)
        }
    }

    private fun notification(progress: Progress?): Notification {
        val step = progress as? Progress.Step
        val text = if (step == null) getString(R.string.clue_waiting) else getString(R.string.clue_epoch, step.epoch + 1)
        val pause = Intent(this, ForgetService::class.java).setAction(PAUSE)
        val action = Notification.Action.Builder(
            Icon.createWithResource(this, R.drawable.clue_forgetting),
            getString(R.string.clue_pause),
            PendingIntent.getService(this, 0, pause, PendingIntent.FLAG_IMMUTABLE),
        ).build()
        return Notification.Builder(this, CHANNEL)
            .setSmallIcon(R.drawable.clue_forgetting)
            .setContentTitle(getString(R.string.clue_forgetting))
            .setContentText(text)
            .setProgress(SHARES, step?.let { (SHARES * it.done / maxOf(1, it.total)).toInt() } ?: 0, step == null)
            .setOnlyAlertOnce(true)
            .setOngoing(true)
            .addAction(action)
            .build()
    }

    public companion object {
        private const val CHANNEL = "io.cluemobile.forgetting"
        private const val ID = 0x636c7565
        private const val SHARES = 1000
        private const val PAUSE = "io.cluemobile.PAUSE"

        /** Carries out the queue now. The app is in the foreground when it calls this, or the system refuses it. */
        public fun start(context: Context) {
            context.startForegroundService(Intent(context, ForgetService::class.java))
        }

        /** Pauses what runs, with a checkpoint. */
        public fun pause(context: Context) {
            context.startService(Intent(context, ForgetService::class.java).setAction(PAUSE))
        }
    }
}
