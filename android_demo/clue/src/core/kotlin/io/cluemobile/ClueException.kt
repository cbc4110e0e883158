package io.cluemobile

/**
 * A problem that the user or the app can act on; the message is one sentence that says what is wrong, where, and what would be
 * right. Whatever the library throws on purpose is of this type; nothing that was stored before is lost by it.
 */
public open class ClueException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** A bundle that cannot be used: changed, incomplete, contradictory, unsigned, or of another version. */
public open class BundleException(message: String, cause: Throwable? = null) : ClueException(message, cause)

/** A bundle that a newer clue-mobile made: update the library. */
public class NewerBundleException(message: String) : BundleException(message)

/** An engine that is not there, cannot load a program, or failed in one. */
public class EngineException(message: String, cause: Throwable? = null) : ClueException(message, cause)

/** A file that cannot be read, written or erased; whatever stood there before is unchanged. */
public open class StorageException(message: String, cause: Throwable? = null) : ClueException(message, cause)

/** No space is left for a file; whatever stood there before is unchanged. */
public class NoSpaceException(message: String, cause: Throwable? = null) : StorageException(message, cause)

/**
 * The error for a name that is none of [choices], which it lists: `unknown class 'owl': Choices: cat, dog`.
 */
internal fun unknown(kind: String, given: String, choices: Collection<String>): ClueException =
    ClueException("unknown $kind '${given.take(100)}': choices are ${choices.sorted().joinToString().ifEmpty { "none" }}")
