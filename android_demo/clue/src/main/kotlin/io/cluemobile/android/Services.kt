package io.cluemobile.android

import android.content.Context
import io.cluemobile.ClueException

/** A service of the system. Throws [ClueException] on a device that lacks it. */
internal inline fun <reified T : Any> Context.service(): T =
    getSystemService(T::class.java) ?: throw ClueException("this device has no ${T::class.java.simpleName}, which the runtime needs")
