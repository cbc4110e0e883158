package io.cluemobile.receipts

import io.cluemobile.NotErased
import io.cluemobile.RequestRow
import io.cluemobile.Signer
import io.cluemobile.bundle.ClueBundle
import io.cluemobile.files.hex
import io.cluemobile.store.now

internal const val RECEIPT_SCHEMA: Int = 1

/** `previous` of the first receipt. */
internal val FIRST: String = "0".repeat(64)

private const val STATEMENT =
    "The method is approximate: it gives no formal guarantee that nothing of the samples is left in the weights."
private const val STORAGE =
    "Files were overwritten and removed. Flash storage may keep old blocks until it uses them again: " +
        "samples in them are unreadable since their key was destroyed, weights are not."

private val EVIDENCE = listOf("steps", "epochs_run", "stopped_early", "forget_accuracy_before", "forget_accuracy_after")
private val CHECKED = listOf("accuracy_at_most", "held_out", "guard", "collapse")
private val COST =
    listOf("wall_s", "cpu_s", "peak_mem_bytes", "energy_j", "energy_source", "energy_scope", "energy_kind")

/** Given the previous receipt's SHA-256 and this one's number: the canonical JSON, signed. */
internal typealias Make = (previous: String, number: Long) -> String

/** What the next receipt begins with: who made it, when, and about which bundle. */
internal class Head(val signer: Signer, val name: String, val manifestSha256: String, val created: String)

/** What a receipt says of a request. */
internal class Requested(
    val id: Long,
    val kind: String,
    /** Index and name; null for a set of samples. */
    val label: Pair<Int, String>?,
    val samples: Int,
    val seed: Long,
) {
    fun asMap(): Map<String, Any?> = mapOf(
        "id" to id,
        "kind" to kind,
        "class" to label?.let { mapOf("index" to it.first, "name" to it.second) },
        "samples" to samples,
        "seed" to seed,
    )
}

/** What a receipt says (contract/receipt.schema.json), and how it is signed. */
internal object ReceiptText {
    /** A request is done. [evidence] and [record] (of the phase "request") as they are kept. */
    fun forget(
        head: Head,
        request: Requested,
        method: Map<String, Any?>,
        weights: Pair<String, String>,
        evidence: Map<String, Any?>,
        record: Map<String, Any?>,
        notErased: List<NotErased>,
    ): Make = aboutRequest(
        head,
        "forget",
        request,
        weights,
        notErased,
        mapOf(
            "method" to method,
            "evidence" to EVIDENCE.associateWith(evidence::getValue) + CHECKED.associateWith(evidence::get),
            "cost" to COST.associateWith(record::getValue),
            "device" to record.getValue("device"),
            "runtime" to record.getValue("runtime"),
        ),
    )

    /** A request was made final; [serving] is the SHA-256 of the weights that serve. */
    fun seal(head: Head, request: Requested, serving: String, erased: List<String>, notErased: List<NotErased>): Make =
        aboutRequest(
            head, "seal", request, serving to serving, notErased, mapOf("erased" to inOrder(erased), "storage" to STORAGE),
        )

    /** Earlier weights serve again: [requests] lost their effect by it, [classes] are no longer forgotten. */
    fun rollback(head: Head, weights: Pair<String, String>, requests: List<Long>, classes: List<String>): Make =
        signed(head, "rollback", weights, mapOf("rolled_back" to requests.sorted(), "classes" to inOrder(classes)))

    /** A new bundle's weights serve and bring [classes] back. */
    fun adopt(head: Head, weights: Pair<String, String>, policy: String, classes: List<String>): Make =
        signed(head, "adopt", weights, mapOf("policy" to policy, "classes" to inOrder(classes)))

    /** What both kinds have that are about one request. */
    private fun aboutRequest(
        head: Head,
        kind: String,
        request: Requested,
        weights: Pair<String, String>,
        notErased: List<NotErased>,
        more: Map<String, Any?>,
    ): Make {
        val body = mapOf("request" to request.asMap(), "not_erased" to pairs(notErased), "statement" to STATEMENT)
        return signed(head, kind, weights, body + more)
    }

    private fun pairs(notErased: List<NotErased>): List<Map<String, String>> =
        notErased.sortedWith(compareBy(BY_CODE_POINT) { it: NotErased -> it.path }.thenBy(BY_CODE_POINT) { it.reason })
            .map { mapOf("path" to it.path, "reason" to it.reason) }

    private fun inOrder(texts: List<String>): List<String> = texts.sortedWith(BY_CODE_POINT)

    private fun signed(head: Head, kind: String, weights: Pair<String, String>, body: Map<String, Any?>): Make = { previous, number ->
        val unsigned = mapOf(
            "schema" to RECEIPT_SCHEMA,
            "kind" to kind,
            "created" to head.created,
            "alg" to head.signer.alg,
            "key" to head.signer.key,
            "bundle" to mapOf("name" to head.name, "manifest_sha256" to head.manifestSha256),
            "weights" to mapOf("before" to weights.first, "after" to weights.second),
        ) + body + mapOf("previous" to previous, "number" to number)
        val signature = head.signer.sign(Canonical.dumps(unsigned).toByteArray())
        Canonical.dumps(unsigned + ("signature" to signature.hex()))
    }
}

/** The order of texts by code points, as Python sorts; the JVM's own is by UTF-16 code units. */
private val BY_CODE_POINT: Comparator<String> = Comparator { one, other ->
    val (a, b) = one.codePoints().toArray() to other.codePoints().toArray()
    for (i in 0 until minOf(a.size, b.size)) if (a[i] != b[i]) return@Comparator a[i].compareTo(b[i])
    a.size.compareTo(b.size)
}

private const val UNTIL_SEALED = "kept until the request is sealed"

/** Makes the receipts of one store and bundle; the signer is asked for when the first is needed, under the lock. */
internal class Issuer(private val bundle: ClueBundle, private val open: () -> Signer) {
    private val signer by lazy(open)

    private fun head() = Head(signer, bundle.name, bundle.sha256, now())

    private fun requested(row: RequestRow) =
        Requested(row.id, row.kind, row.label?.let { it to bundle.classes[it] }, row.samples, row.seed)

    /** A request is done; [generation] is the file name of the weights [before]. Nothing was erased yet. */
    fun forget(
        row: RequestRow,
        before: String,
        after: String,
        generation: String,
        evidence: Map<String, Any?>,
        record: Map<String, Any?>,
    ): Make {
        val left = listOf(
            NotErased("store.db", "the request's ${row.samples} samples, encrypted: $UNTIL_SEALED"),
            NotErased("generations/$generation", "the weights before, for a rollback: $UNTIL_SEALED"),
            NotErased("the bundle's ${bundle.weights.file}", "the weights as delivered: $UNTIL_SEALED"),
        )
        val method = mapOf("name" to bundle.method, "batch" to bundle.batch, "scalars" to row.scalars)
        return ReceiptText.forget(head(), requested(row), method, before to after, evidence, record, left)
    }

    fun rollback(before: String, after: String, requests: List<Long>, classes: List<String>): Make =
        ReceiptText.rollback(head(), before to after, requests, classes)

    fun seal(row: RequestRow, serving: String, erased: List<String>, notErased: List<NotErased>): Make =
        ReceiptText.seal(head(), requested(row), serving, erased, notErased)

    fun adopt(before: String, after: String, policy: String, classes: List<String>): Make =
        ReceiptText.adopt(head(), before to after, policy, classes)
}
