package io.cluemobile.demo

import android.content.Context
import io.cluemobile.Classifier
import io.cluemobile.ForgetStore
import io.cluemobile.Unlearner
import io.cluemobile.UpdatePolicy
import io.cluemobile.android.AndroidPlatform
import io.cluemobile.android.open
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.ort.OrtEngine

/** The bundle that ships with the app, opened once, with its store, its classifier and what makes it forget. */
class Clue(private val context: Context) {
    /** All that is open. */
    class Opened(val store: ForgetStore, val classifier: Classifier, val unlearner: Unlearner)

    private var opened: Opened? = null

    /** Opens what is not open yet, or not any longer since a write failed; blocks for the disk. Throws ClueException. */
    @Synchronized
    fun open(): Opened = opened?.takeIf { it.store.isOpen } ?: run {
        opened?.classifier?.close()
        val private = context.noBackupFilesDir.toPath()
        val bundle = ClueBundle.open(context.assets, BUNDLE, private.resolve("bundles"))
        // an update of the app that has the class again queues its forgetting again
        val store = ForgetStore.open(private.resolve("store"), bundle, AndroidPlatform(context), UpdatePolicy.PENDING)
        val engine = OrtEngine.create()
        Opened(store, Classifier(store, engine), Unlearner(store, engine)).also { opened = it }
    }

    private companion object {
        const val BUNDLE = "digits.clue"
    }
}
