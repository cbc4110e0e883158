package io.cluemobile.demo

import android.app.Activity
import android.view.View

/** A view of the activity's layout. */
fun <T : View> Activity.view(id: Int): T = checkNotNull(findViewById(id)) { "the layout lacks a view" }
