package io.cluemobile.files

import java.nio.Buffer

/**
 * The buffer with its position at [start] and its limit at [end].
 *
 * The methods of [Buffer] are called, not those by which newer versions of its subclasses return their own type: code compiled
 * against those fails on Android 8.
 */
internal fun <B : Buffer> B.between(start: Int, end: Int): B {
    clear()
    limit(end)
    position(start)
    return this
}
