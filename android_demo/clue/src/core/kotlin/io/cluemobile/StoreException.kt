package io.cluemobile

/** Another request, sealing or rollback is working on the store: wait until it ends. */
public class BusyException(message: String, cause: Throwable? = null) : ClueException(message, cause)

/** A request was to go to a state that cannot follow the one it is in. */
public class TransitionException(message: String) : ClueException(message)

/** The weights of a new bundle bring back what was forgotten, and the policy refuses that. */
public class BroughtBackException(message: String) : ClueException(message)

/** An image that cannot be decoded, or is not of a kind that is read. */
public class ImageException(message: String, cause: Throwable? = null) : ClueException(message, cause)
