package io.cluemobile

import java.io.InputStream
import java.nio.file.Path

/** What the runtime takes from the system that it runs on; one implementation for Android, one for a JVM. */
public interface Platform {
    /** Opens (or creates, private to its owner) the SQLite database in [file]. Throws [SqlException]. */
    public fun openDatabase(file: Path): SqlDatabase

    /**
     * The signer of the receipts of the store in [folder]; its key is made on first use. It is called while the
     * store's lock is held. Throws [ClueException] where the key is damaged or cannot be made.
     */
    public fun signer(folder: Path): Signer

    /** Decodes pictures. */
    public val images: ImageDecoder

    /** Facts and sensors of the device. */
    public val device: Device
}

/** Signs receipts with a key that stays where it is. */
public interface Signer {
    /** "Ed25519", or "ES256" where the platform's key store has no Ed25519. */
    public val alg: String

    /** The public key in hex: 32 bytes of Ed25519, or an uncompressed point of P-256 (65 bytes: 4, x, y). */
    public val key: String

    /** The signature of [content], 64 raw bytes: Ed25519's, or r and s of ES256. Throws [ClueException]. */
    public fun sign(content: ByteArray): ByteArray
}

/** Decodes pictures by the table "Decode" of contract/resize.md. */
public interface ImageDecoder {
    /**
     * The first frame of a JPEG or PNG, upright, on black, RGB or grey as [grey] says, at its own size.
     *
     * [open] gives the file from its start each time it is called; [name] is for errors. Throws [ImageException] for
     * what is damaged, empty, of another kind, or has more than [mostPixels] pixels.
     */
    public fun decode(open: () -> InputStream, name: String, grey: Boolean, mostPixels: Int = MOST_PIXELS): Pixels

    public companion object {
        /** Larger pictures are refused unless another limit is given. */
        public const val MOST_PIXELS: Int = 1 shl 26

        /** Larger files are refused unread, in bytes. */
        public const val MOST_BYTES: Long = 256L shl 20

        /** Longer sides are refused. */
        public const val MOST_SIDE: Int = 65_535
    }
}

/** One picture: uint8, row by row, the channels of a pixel side by side. */
public class Pixels(
    public val height: Int,
    public val width: Int,
    public val channels: Int,
    public val bytes: ByteArray,
)

/** What the device is and what its sensors say now; null where it does not tell. */
public interface Device {
    /** The model's name. */
    public val model: String

    /** The system and its version. */
    public val os: String

    /** The system on a chip. */
    public val soc: String?

    /** Installed memory, bytes. */
    public val ramBytes: Long

    /** The processor's, or else the battery's, temperature in degrees Celsius. */
    public fun celsius(): Double?

    /** Whether the system holds the processor down because of heat. */
    public fun throttled(): Boolean?

    /**
     * Why the system's own judgement of heat asks the runtime to pause, in words that follow "too hot: "; null while it does not, or
     * where the system makes none. It is asked beside [celsius], since phones hide the processor's temperature from apps.
     */
    public fun tooHot(): String? = null

    /** The clock of the fastest processor in MHz. */
    public fun megahertz(): Double?

    /** Whether an external supply is connected. */
    public fun plugged(): Boolean?

    /** The bytes that can be used without other programs being ended. */
    public fun availableMemory(): Long?

    /** Processor time of all threads of this process, seconds. */
    public fun processorSeconds(): Double

    /** The largest resident memory of this process since [resetPeakMemory], bytes. */
    public fun peakMemory(): Long

    /** Starts the count of [peakMemory] anew where the system allows it. */
    public fun resetPeakMemory()

    /** How [peakMemory] is measured, and whether it can be started anew. */
    public val peakMemorySource: String

    /** Opens the meter of this device's energy. */
    public fun energy(): Energy
}

/** A counter of joules, or the reason why there is none: a wrong figure is worse than none. */
public interface Energy : AutoCloseable {
    /** What goes on record as energy_source, energy_scope and energy_kind ("measured" or "estimated"); null without. */
    public val facts: EnergyFacts?

    /** Why nothing is measured, or what else is to be known. */
    public val note: String?

    /** Joules since it was opened; null where they are not known (any longer). */
    public fun joules(): Double?

    override fun close()
}

/** Where energy figures come from, as contract/cost.schema.json has it; [hz] samples a second, null for a counter. */
public data class EnergyFacts(
    public val source: String,
    public val scope: String,
    public val kind: String,
    public val hz: Double?,
)
