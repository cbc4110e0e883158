package io.cluemobile.android

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.app.job.JobService
import android.content.ComponentName
import android.content.Context
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

/**
 * Carries out waiting requests while the device charges and nobody uses it. The system ends it when that is over (and after some ten
 * minutes in any case): the request pauses with a checkpoint and goes on next time, to the same weights.
 *
 * The app's `Application` must be a [ClueHost].
 */
public class ForgetJobService : JobService() {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)
    private var running: Job? = null

    override fun onStartJob(params: JobParameters): Boolean {
        val host = application as? ClueHost ?: error("${application.javaClass.name} must implement ClueHost for ForgetJobService")
        running = scope.launch {
            jobFinished(params, ForgetWork.run(host))
        }
        return true
    }

    override fun onStopJob(params: JobParameters): Boolean {
        running?.cancel()
        return true
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }

    public companion object {
        private const val JOB_ID = 0x636c7565

        /**
         * Has the queue carried out as soon as the device charges, is idle and its battery is not low; also after a restart. Does
         * nothing when that is so already: the system would stop a job that runs to schedule it again.
         */
        public fun schedule(context: Context, jobId: Int = JOB_ID) {
            val scheduler = context.service<JobScheduler>()
            if (scheduler.getPendingJob(jobId) != null) return
            val job = JobInfo.Builder(jobId, ComponentName(context, ForgetJobService::class.java))
                .setRequiresCharging(true)
                .setRequiresDeviceIdle(true)
                .setRequiresBatteryNotLow(true)
                .setPersisted(true)
                .build()
            scheduler.schedule(job)
        }

        /** Takes [schedule] back. */
        public fun unschedule(context: Context, jobId: Int = JOB_ID) {
            context.service<JobScheduler>().cancel(jobId)
        }
    }
}
