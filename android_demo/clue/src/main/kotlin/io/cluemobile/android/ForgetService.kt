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
import android.os.PowerManager
import io.cluemobile.ClueException
import io.cluemobile.Progress
import io.cluemobile.clue.R
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.job
import kotlinx.coroutines.launch
import java.util.concurrent.TimeUnit

/**
 * Carries out waiting requests now, with a notification that shows how far they are and can pause them. Start it from a screen that the
 * user sees: [start]. Watch [ForgetWork.state]. When the system ends it, or the process dies, [ForgetJobService] goes on later.
 *
 * The app's `Application` must be a [ClueHost].
 */
public class ForgetService : Service() {
    // All of the service is done on the main thread: a start that comes while a run ends is either seen by it or begins another.
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Main)
    private var running: Job? = null
    private var latestStart = 0
    private lateinit var awake: PowerManager.WakeLock

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onCreate() {
        super.onCreate()
        val channel = NotificationChannel(CHANNEL, getString(R.string.clue_channel), NotificationManager.IMPORTANCE_LOW)
        service<NotificationManager>().createNotificationChannel(channel)
        awake = service<PowerManager>().newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "clue:forgetting").apply { setReferenceCounted(false) }
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        latestStart = startId
        if (intent?.action == PAUSE) {
            running?.cancel() ?: stopSelf(startId)
            return START_NOT_STICKY
        }
        ForgetJobService.schedule(this) // goes on with what is left should the process die
        try {
            show(notification(null))
        } catch (_: IllegalStateException) { // the app is not seen any longer, or has used up the time for such services
            if (running == null) stopSelf(startId)
            return START_NOT_STICKY
        }
        if (running?.isActive != true) begin()
        return START_NOT_STICKY
    }

    private fun begin() {
        val host = application as? ClueHost ?: error("${application.javaClass.name} must implement ClueHost for ForgetService")
        awake.acquire(LONGEST_MS)
        running = scope.launch {
            try {
                carryOut(host)
            } finally {
                // after a pause the user may have started anew already
                if (running === coroutineContext.job) end()
            }
        }
    }

    private suspend fun carryOut(host: ClueHost) = coroutineScope {
        val watcher = launch { watch() }
        do {
            val seen = latestStart
            val later = ForgetWork.run(host, wait = true)
            if (later) ForgetJobService.schedule(this@ForgetService)
        } while (latestStart != seen) // what was asked for while the run ended may have come too late for it
        watcher.cancel()
    }

    /** Shows how far it is, once a second: the system drops what comes more often. */
    private suspend fun watch() {
        ForgetWork.state.collect { state ->
            service<NotificationManager>().notify(ID, notification(state.step))
            delay(NOTIFY_EACH_MS)
        }
    }

    private fun end() {
        running = null
        awake.release()
        stopForeground(STOP_FOREGROUND_REMOVE)
        service<NotificationManager>().cancel(ID)
        stopSelf(latestStart)
    }

    /** The system's limit on services of this type: six hours a day from Android 15 on. */
    override fun onTimeout(startId: Int, fgsType: Int) {
        running?.cancel()
        stopSelf()
    }

    override fun onDestroy() {
        scope.cancel()
        awake.release()
        super.onDestroy()
    }

    private fun show(notification: Notification) {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) {
            startForeground(ID, notification, ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC)
        } else {
            startForeground(ID, notification)
        }
    }

    private fun notification(step: Progress.Step?): Notification {
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

        // the process may not sleep while it works; the limit is for what nobody expects
        private val LONGEST_MS = TimeUnit.HOURS.toMillis(6)
        private const val NOTIFY_EACH_MS = 1_000L

        /** Carries out the queue now. Throws [ClueException] where the app is not in the foreground and the system refuses it. */
        public fun start(context: Context): Unit = inForeground {
            context.startForegroundService(Intent(context, ForgetService::class.java))
        }

        /** Pauses what runs, with a checkpoint. Throws [ClueException] as [start] does. */
        public fun pause(context: Context): Unit = inForeground {
            context.startService(Intent(context, ForgetService::class.java).setAction(PAUSE))
        }

        private fun inForeground(work: () -> Unit) {
            try {
                work()
            } catch (error: IllegalStateException) { // ForegroundServiceStartNotAllowedException from Android 12 on
                throw ClueException("the system lets an app do this only while its screen is seen: open the app and try again", error)
            }
        }
    }
}
