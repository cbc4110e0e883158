package io.cluemobile.receipts

import io.cluemobile.Contract
import io.cluemobile.NotErased
import io.cluemobile.files.sha256
import io.cluemobile.json.objects
import io.cluemobile.json.text
import io.cluemobile.jvm.FileSigner
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

private const val CREATED = "2026-01-02T03:04:05+00:00"

/** The receipts of every kind against contract/receipts/golden.json, byte for byte. */
internal class ReceiptTextTest {
    private val golden = Contract.json("receipts/golden.json")
    private val signer = FileSigner.of(bytes(golden.text("private_key")))
    private val head = Head(signer, "f\u00eate \u20ac", "11".repeat(32), CREATED)
    private val request = Requested(1, "class", 1 to "dog\u2019s", 300, (1L shl 53) - 1)
    private val some = Requested(2, "samples", null, 12, 0)
    private val scalars = mapOf("lr" to 1e-7, "tau" to 0.003, "epochs" to 2.0, "large" to 1e21)
    private val method = mapOf("name" to "clue", "batch" to 32, "scalars" to scalars)
    private val left = listOf(
        NotErased("weights.safetensors", "the bundle is only read"),
        NotErased("store.db", "kept until the request is sealed"),
    )

    private fun bytes(hex: String) = ByteArray(hex.length / 2) { hex.substring(2 * it, 2 * it + 2).toInt(16).toByte() }

    private fun weights(before: Int, after: Int) = "$before$before".repeat(32) to "$after$after".repeat(32)

    @Test
    fun `the known chain`() {
        val makes = listOf(
            ReceiptText.forget(head, request, method, weights(2, 3), EVIDENCE, RECORD, left),
            ReceiptText.seal(
                head, request, "33".repeat(32), listOf("keys/2.key", "generations/000001.safetensors"), left.take(1),
            ),
            ReceiptText.forget(head, some, method, weights(3, 4), EVIDENCE + GUARDED, RECORD + ENERGY, left),
            ReceiptText.rollback(head, weights(4, 3), listOf(2), emptyList()),
            ReceiptText.adopt(head, weights(3, 5), "serve", listOf("dog\u2019s")),
        )
        assertEquals(golden.text("public_key"), signer.key)
        var previous = FIRST
        val wanted = golden.objects("receipts")
        assertEquals(wanted.size, makes.size)
        makes.forEachIndexed { i, make ->
            val text = make(previous, i + 1L)
            assertEquals(wanted[i].text("text"), text)
            previous = sha256(text.toByteArray())
            assertEquals(wanted[i].text("sha256"), previous)
        }
    }

    private companion object {
        val RECORD = mapOf(
            "wall_s" to 41.25, "cpu_s" to 39.999, "peak_mem_bytes" to 91226112, "energy_j" to null,
            "energy_source" to null, "energy_scope" to null, "energy_kind" to null,
            "device" to mapOf(
                "model" to "Raspberry Pi 5 Model B Rev 1.0", "os" to "Linux", "soc" to "bcm2712", "ram_bytes" to 8453111808,
            ),
            "runtime" to mapOf(
                "name" to "onnx", "version" to "1.20.1", "backend" to "CPUExecutionProvider", "threads" to 4,
            ),
        )
        val ENERGY = mapOf(
            "energy_j" to 12.5, "energy_source" to "pmic", "energy_scope" to "board", "energy_kind" to "estimated",
        )
        val EVIDENCE = mapOf(
            "steps" to 64, "epochs_run" to 2, "stopped_early" to true, "forget_accuracy_before" to 96.875,
            "forget_accuracy_after" to 100.0 / 3, "accuracy_at_most" to 35.0,
            "held_out" to mapOf("samples" to 30, "accuracy_before" to 90.0, "accuracy_after" to 10.0),
            "guard" to null,
            "collapse" to mapOf(
                "probes" to 320, "kept" to 62.1875, "kept_at_least" to 30.0, "largest_share_at_most" to 98.0,
                "largest_share_before" to 21.5625, "largest_share_after" to 30.3125,
            ),
        )
        val GUARDED = mapOf(
            "held_out" to null, "collapse" to null,
            "guard" to mapOf("images" to 72, "accuracy_before" to 87.5, "accuracy_after" to 86.0, "drop_at_most" to 20.0),
        )
    }
}
