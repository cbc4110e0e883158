package io.cluemobile.bundle

import io.cluemobile.BundleException
import io.cluemobile.files.readSmall
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.Path

private const val SIGNATURE = "manifest.sig"
private const val SIGNATURE_BYTES = 64
private const val MAX_LIST = 1 shl 20
private val PEM = Regex("-----BEGIN PUBLIC KEY-----(.+?)-----END PUBLIC KEY-----", RegexOption.DOT_MATCHES_ALL)
private val HEX_KEY = Regex("[0-9a-fA-F]{64}")

// An Ed25519 key in PEM is these bytes and the 32 of the key (RFC 8410).
private val SPKI_PREFIX = byteArrayOf(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00)

/**
 * The public keys of a list, 32 bytes each: Ed25519 keys in PEM, or lines that begin with 64 hexadecimal digits; empty lines and
 * lines that begin with # are skipped. Throws [BundleException] for anything else and for no key at all.
 */
internal fun trustedKeys(list: Path): List<ByteArray> {
    val content = readSmall(list, MAX_LIST).decodeToString()
    val keys = PEM.findAll(content).map { fromPem(list, it.groupValues[1]) }.toMutableList()
    for (line in PEM.replace(content, "").lineSequence()) {
        val word = line.trim().substringBefore(' ')
        if (word.isEmpty() || word.startsWith("#")) continue
        if (!HEX_KEY.matches(word)) {
            throw BundleException("$list is no list of public keys: write Ed25519 keys in PEM or as 64 hexadecimal digits")
        }
        keys += word.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
    }
    if (keys.isEmpty()) throw BundleException("$list has no public key")
    return keys
}

private fun fromPem(list: Path, text: String): ByteArray {
    val bytes = try {
        java.util.Base64.getMimeDecoder().decode(text.trim())
    } catch (error: IllegalArgumentException) {
        throw BundleException("$list has a public key that cannot be read", error)
    }
    val prefix = SPKI_PREFIX.size
    if (bytes.size != prefix + 32 || !bytes.copyOf(prefix).contentEquals(SPKI_PREFIX)) {
        throw BundleException("$list has a public key that is not Ed25519")
    }
    return bytes.copyOfRange(prefix, prefix + 32)
}

/** Throws [BundleException] unless each of the lists has a key that [manifest] was signed with; no lists, no check. */
internal fun checkTrust(bundle: Path, manifest: ByteArray, trusted: List<Path>) {
    if (trusted.isEmpty()) return
    val place = bundle.resolve(SIGNATURE)
    if (!Files.exists(place, LinkOption.NOFOLLOW_LINKS)) {
        throw BundleException("bundle $bundle is not signed, and only signed ones are trusted here (listed in ${trusted.joinToString()})")
    }
    val signature = readSmall(place, SIGNATURE_BYTES)
    for (list in trusted) {
        if (trustedKeys(list).none { Ed25519.isSigned(manifest, signature, it) }) {
            throw BundleException(
                "bundle $bundle is not signed by a trusted key, or was changed after it was signed (listed in $list)",
            )
        }
    }
}
