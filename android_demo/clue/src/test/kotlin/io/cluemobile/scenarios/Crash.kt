package io.cluemobile.scenarios

import io.cluemobile.ForgetStore
import io.cluemobile.Platform
import io.cluemobile.Progress
import io.cluemobile.SqlDatabase
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.jvm.JvmPlatform
import io.cluemobile.ort.OrtEngine
import io.cluemobile.request.Control
import io.cluemobile.request.carryOut
import io.cluemobile.waitToBeKilled
import java.nio.file.Files
import java.nio.file.Path

/** The steps of sealing, as it tells them, at which the process is to die. */
private val SEAL_POINTS = mapOf("seal_began" to 1, "rows_erased" to 2, "files_erased" to 3)

/** The process that a scenario kills: opens a store and works until it comes to the point. */
internal object Crash {
    @JvmStatic
    fun main(arguments: Array<String>) {
        val (root, folder, id, point) = arguments
        val store = Path.of(folder)
        ForgetStore.open(store, ClueBundle.open(Path.of(root)), CrashPlatform(point, store)).use {
            val sealPoint = SEAL_POINTS[point]
            if (sealPoint != null) {
                var told = 0
                it.store.seal(id.toLong(), { if (++told == sealPoint) waitToBeKilled() })
            } else {
                var done = 0L
                val after = if (point == "operation") arguments[4].toLong() else Long.MAX_VALUE
                val progress = { step: Progress -> if (step is Progress.Step && ++done >= after) waitToBeKilled() }
                carryOut(it.store, OrtEngine.create(1), id.toLong(), Control(it.platform.device, progress))
            }
        }
    }
}

/** Knows by the statements when new weights lie on the disk, and when they have begun to serve. */
private class CrashPlatform(private val point: String, private val store: Path) : Platform by JvmPlatform() {
    override fun openDatabase(file: Path): SqlDatabase = Watched(JvmPlatform().openDatabase(file))

    private inner class Watched(private val inner: SqlDatabase) : SqlDatabase by inner {
        private var swapped = false

        override fun execute(statement: String, vararg values: Any?): Int {
            if (statement == "BEGIN IMMEDIATE" && point == "weights_written" && hasUnnamedWeights()) waitToBeKilled()
            val changed = inner.execute(statement, *values)
            if (statement.startsWith("INSERT INTO generations") && values[1] != null) swapped = true
            if (statement == "COMMIT" && swapped && point == "swapped") waitToBeKilled()
            return changed
        }

        private fun hasUnnamedWeights(): Boolean {
            var named = 0L
            inner.query("SELECT count(*) FROM generations WHERE file NOTNULL") { named = it.long(0)!! }
            val files = Files.newDirectoryStream(store.resolve("generations"), "*.safetensors").use { it.count() }
            return files > named
        }
    }
}
