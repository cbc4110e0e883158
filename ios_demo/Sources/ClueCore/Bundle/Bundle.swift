import Foundation

/// An input or output of a program; `binds` is the name it is joined to, "" for results and metrics.
public struct ProgramPort: Sendable, Equatable {
    public let name: String
    public let role: String
    public let shape: [Int]
    public let binds: String
}

/// A file of the bundle: its path inside the folder, its SHA-256 in hex and its size in bytes.
public struct FileEntry: Sendable, Equatable {
    public let file: String
    public let sha256: String
    public let bytes: Int
}

/// One draw of a golden input (contract/golden.md).
public struct GoldenDraw: Sendable, Equatable {
    public let length: Int
    public let distribution: String
    public let a: Double
    public let b: Double
}

/// How to make a program's inputs and where its expected outputs are (contract/golden.md).
public struct Golden: Sendable, Equatable {
    /// An output whose every `stride`-th element the file has; the largest error may be `tolerance` times the largest element.
    public struct Output: Sendable, Equatable {
        public let port: String
        public let stride: Int
        public let tolerance: Double
    }

    public let file: String
    public let sha256: String
    public let seed: UInt64
    public let inputs: [String: [GoldenDraw]]
    public let outputs: [Output]
}

/// A pure function with fixed shapes; `files` by engine, `flops` and `peakBytes` planned by export.
public struct Program: Sendable, Equatable {
    public let name: String
    public let batch: Int
    public let inputs: [ProgramPort]
    public let outputs: [ProgramPort]
    public let flops: Int
    public let peakBytes: Int
    public let files: [String: FileEntry]
    public let golden: Golden
}

/// An array that the runtime holds while a request runs; `shape` is that of one row for role "cache".
public struct Value: Sendable, Equatable {
    /// Where the first content comes from.
    public enum Start: Sendable, Equatable {
        case zeros
        case weights(String)
        case file(String, key: String)
        case value(String)
        case random(String)
    }

    public let name: String
    public let role: String
    public let shape: [Int]
    public let start: Start
    /// "float32", or "bits" for zeros and ones that a checkpoint packs.
    public let storage: String

    /// The array of the weights file that it starts from.
    public var weightsKey: String? {
        if case .weights(let key) = start { key } else { nil }
    }
}

/// A named random stream; `shape` is one sample's draw, the last three as its distribution needs.
public struct RandomStream: Sendable, Equatable {
    public let name: String
    public let stream: UInt32
    public let distribution: String
    public let shape: [Int]
    public let low: Double
    public let high: Double
    public let classes: Int
}

/// The retain-free signal: of `probes` images, `keptAtLeast` percent must keep their class, and not more than
/// `largestShareAtMost` percent may fall on one and the same.
public struct Collapse: Sendable, Equatable {
    public let probes: Int
    public let keptAtLeast: Double
    public let largestShareAtMost: Double
}

/// What the manifest of a bundle says, checked: see `ClueBundle.open`.
public struct ClueBundle: Sendable {
    public let root: URL
    public let name: String
    /// Of the bytes of manifest.json, in hex.
    public let sha256: String
    public let classes: [String]
    /// C, H, W.
    public let inputShape: [Int]
    /// "RGB" or "L".
    public let color: String
    /// How an image of another size becomes one of the model's: "stretch" or "center-crop".
    public let fit: String
    public let method: String
    public let batch: Int
    public let tunedBatch: Int
    public let scalars: [String: Double]
    /// Percent.
    public let forgetAccuracyAtMost: Double
    /// Percent; nil where the bundle has no limit for requests of samples.
    public let sampleAccuracyAtMost: Double?
    public let weights: FileEntry
    /// In the order of the manifest.
    public let values: [Value]
    public let randoms: [String: RandomStream]
    /// In the order of the manifest.
    public let programs: [Program]
    public let plan: [PlanNode]
    public let files: [String: FileEntry]
    public let notices: [String]
    /// The file of the guard images.
    public let guardFile: String?
    /// By how many points the accuracy on the guard images may fall.
    public let guardDropAtMost: Double?
    public let collapse: Collapse?
    /// Fewer images of a class than this were seen to be too few; 0 where nothing is known.
    public let leastImages: Int
}
