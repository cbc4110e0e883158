package io.cluemobile.demo

import android.app.Application
import io.cluemobile.Unlearner
import io.cluemobile.android.ClueHost

/** The process: screens come and go with rotations, the model stays. */
class DemoApplication :
    Application(),
    ClueHost {
    /** What the screen shows and does. */
    val model: DemoModel by lazy { DemoModel(this) }

    override fun unlearner(): Unlearner = model.clue.open().unlearner
}
