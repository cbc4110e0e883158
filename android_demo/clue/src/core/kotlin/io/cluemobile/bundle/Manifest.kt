package io.cluemobile.bundle

import io.cluemobile.BundleException
import io.cluemobile.NewerBundleException
import io.cluemobile.files.readSmall
import io.cluemobile.files.sha256
import io.cluemobile.json.JsonException
import io.cluemobile.json.JsonObject
import io.cluemobile.json.JsonSchema
import io.cluemobile.json.StrictJson
import io.cluemobile.json.asObject
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.Path

/** The manifest as checked JSON: signature, hash, one meaning, the schema; in this order. */
internal class Manifest(val json: JsonObject, val sha256: String) {
    companion object {
        /** 1 where a plan has no variants to run instead. */
        const val VERSION: Long = 2
        private const val MAX_BYTES = 16 shl 20
        private const val MOST_SHOWN = 200

        // Shown, but never used as names: these may have lines.
        private val TEXTS = setOf("license", "notices")
        private val SCHEMA by lazy { JsonSchema.ofContract("manifest.schema.json") }

        /**
         * The manifest of the bundle folder [root]. With [trusted] lists of keys, nothing is parsed before the signature was found
         * good. Throws [BundleException] for anything that is not as export writes it.
         */
        fun read(root: Path, trusted: List<Path>): Manifest {
            val path = root.resolve("manifest.json")
            if (!Files.isRegularFile(path, LinkOption.NOFOLLOW_LINKS)) {
                throw BundleException("$root is no bundle: it has no manifest.json")
            }
            val content = readSmall(path, MAX_BYTES)
            checkTrust(root, content, trusted)
            val digest = sha256(content)
            val recorded = readSmall(root.resolve("manifest.sha256"), 4096).decodeToString().trim().split(' ', '\t', '\n')
            if (recorded.first() != digest) {
                throw BundleException("bundle $root: manifest.json does not match manifest.sha256; copy the bundle again")
            }
            return Manifest(parse(root, content), digest)
        }

        /** The JSON of a manifest that fits the schema; [root] is for the errors. Throws [BundleException]. */
        fun parse(root: Path, content: ByteArray): JsonObject {
            val raw = try {
                StrictJson.parse(content, MAX_BYTES)
            } catch (error: JsonException) {
                throw BundleException("bundle $root: manifest.json is not valid JSON (${error.message}); export it again", error)
            }
            val version = (raw as? Map<*, *>)?.get("schema_version")
            if (version is Long && version > VERSION) {
                throw NewerBundleException(
                    "bundle $root was made by a newer clue-mobile (manifest version $version, this runtime reads $VERSION): " +
                        "update the app",
                )
            }
            SCHEMA.problem(raw)?.let {
                throw BundleException(
                    "bundle $root: manifest.json, ${it.where.take(MOST_SHOWN)}: ${it.problem.take(MOST_SHOWN)}; export it again",
                )
            }
            val checked = raw.asObject()
            for ((name, part) in checked) {
                // Names are shown, and become names of folders.
                if (name !in TEXTS && StrictJson.strings(part).any(StrictJson::hasControl)) {
                    throw BundleException("bundle $root: manifest.json, $name: a text has control characters")
                }
            }
            return checked
        }
    }
}
