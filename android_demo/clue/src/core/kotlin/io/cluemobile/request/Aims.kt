package io.cluemobile.request

import io.cluemobile.ClueException
import io.cluemobile.Options
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.plan.Number
import io.cluemobile.plan.StopNode
import io.cluemobile.plan.leaves
import java.security.SecureRandom

/** Seeds are from 0 to below this: JSON numbers beyond are not exact in every reader, and the seed is on record as one. */
private const val SEED_LIMIT = 1L shl 53

/** The seed, or a new one from the system. Throws [ClueException] when it is out of range. */
internal fun checkSeed(seed: Long?): Long {
    if (seed == null) return SecureRandom().nextLong() and (SEED_LIMIT - 1)
    if (seed !in 0 until SEED_LIMIT) throw ClueException("seed $seed is out of range: it must be from 0 to 2^53 - 1")
    return seed
}

/**
 * The percent that the accuracy on the samples must come down to; [given] is the request's own.
 *
 * Throws [ClueException] when a request of samples has none.
 */
internal fun accuracyLimit(bundle: ClueBundle, kind: String, given: Double?): Double =
    given ?: (if (kind == "class") bundle.forgetAccuracyAtMost else bundle.sampleAccuracyAtMost) ?: throw ClueException(
        "${bundle.name} does not say how accurate it is on images that it never saw, which a request of samples comes down " +
            "to: give accuracy_at_most in percent, or export with --guard-data",
    )

/**
 * Checks what a new request asks of its outcome; the scalars by which its plan aims at that.
 *
 * A request of samples is to end at test-like accuracy, not far below: where the plan has a stop whose limit is a scalar,
 * that gets the request's limit, and one that would never measure does so each time. Throws [ClueException] for options
 * that make no sense.
 */
internal fun aims(bundle: ClueBundle, kind: String, options: Options): Map<String, Double> {
    if (kind == "samples" && options.holdout != null && options.holdout != 0.0) {
        throw ClueException("a request of chosen samples cannot hold any out (holdout must be 0): each is to be forgotten")
    }
    val limit = accuracyLimit(bundle, kind, options.accuracyAtMost)
    if (kind == "class") return emptyMap()
    return buildMap {
        for (stop in leaves(bundle.plan).mapNotNull { it.node as? StopNode }) {
            (stop.accuracyAtMost as? Number.Scalar)?.let { put(it.name, limit) }
            (stop.every as? Number.Scalar)?.let { if (bundle.scalars.getValue(it.name) == 0.0) put(it.name, 1.0) }
        }
    }
}
