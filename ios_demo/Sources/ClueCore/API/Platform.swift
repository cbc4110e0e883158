import Foundation

/// What the runtime asks of the device it runs on. Each answer may be nil where the device does not tell; nil goes on record as null.
public protocol DeviceMonitor: Sendable {
    /// The device entry of a cost record.
    var facts: DeviceFacts { get }
    /// The processor's temperature in degrees Celsius.
    func temperature() -> Double?
    /// Whether the clock is held down at this moment.
    func throttled() -> Bool?
    /// The clock of the fastest processor in MHz.
    func frequency() -> Double?
    /// Whether an external supply is connected; nil for a device without a battery.
    func plugged() -> Bool?
    /// Why the device is too hot to go on, in a few words; nil while it is not. Asked besides `temperature`:
    /// phones tell a state, not degrees.
    func overheated() -> String?
    /// Bytes that this process may still take; nil where the system does not tell.
    func availableMemory() -> Int?
    /// Begins a new measurement of the peak memory, where the system can.
    func resetPeakMemory()
    /// The peak memory in bytes since `resetPeakMemory`, or since a moment that `peakMemorySource` names.
    func peakMemory() -> Int
    /// How the peak is measured, and whether it is of a phase alone.
    var peakMemorySource: String { get }
    /// The joules used so far since some moment, and what they cover; a device without a meter has none. Read when a run begins.
    var energy: EnergySource { get }
}

/// What a cost record says of the device.
public struct DeviceFacts: Equatable, Sendable {
    public let model: String
    public let os: String
    public let soc: String?
    public let ramBytes: Int

    public init(model: String, os: String, soc: String?, ramBytes: Int) {
        (self.model, self.os, self.soc, self.ramBytes) = (model, os, soc, ramBytes)
    }
}

/// Where the energy of a request comes from.
public enum EnergySource: Sendable {
    /// Nothing measures it; the reason goes on record, and is asked when the record is written.
    case none(reason: @Sendable () -> String)
    /// A counter of joules. `name`, `scope` and `kind` ("measured" or "estimated") go on record; `joules` is nil when it cannot be
    /// read at this moment.
    case counter(name: String, scope: String, kind: String, joules: @Sendable () -> Double?)
}

/// Signs the receipts of one store.
public protocol ReceiptSigner: Sendable {
    /// "Ed25519", or "ES256" where the platform's key store has no Ed25519.
    var algorithm: String { get }
    /// The public key in hex: 32 bytes of Ed25519, or the uncompressed point of P-256.
    var publicKey: String { get }
    /// The signature of the content in hex, 64 bytes. Throws ``ClueError`` when the key cannot be used.
    func sign(_ content: [UInt8]) throws -> String
}

/// Where the signing key of a store lies. The key is made when the first receipt needs it.
public protocol SignerSource: Sendable {
    /// The signer of the store in `folder`, called while the store's lock is held. Throws ``ClueError``.
    func signer(for folder: URL) throws -> any ReceiptSigner
}

/// Turns the bytes of a picture into upright 8-bit pixels of its own size, by the table "Decode" of contract/resize.md.
public protocol ImageDecoder: Sendable {
    /// One image with 3 channels, or 1 when `grey`. Throws ``ClueError`` naming what is wrong with the picture.
    func decode(_ data: Data, grey: Bool) throws -> Images
}

/// What of the runtime depends on the platform; each part can be replaced.
public struct Platform: Sendable {
    public var device: any DeviceMonitor
    public var signers: any SignerSource
    /// nil: pictures must be given as pixels.
    public var decoder: (any ImageDecoder)?

    public init(device: any DeviceMonitor, signers: any SignerSource, decoder: (any ImageDecoder)? = nil) {
        (self.device, self.signers, self.decoder) = (device, signers, decoder)
    }
}
