import Foundation

/// Logits by whatever weights file is given with the call. Programs and weights are loaded on first use; other
/// weights are read into the same arrays. One thread at a time uses it, such as the actor that owns it.
public final class WeightsServer {
    private let bundle: ClueBundle
    private let engine: any Engine
    private var classifiers: [String: BatchClassifier] = [:]
    private var state: [String: FloatArray] = [:]
    private var loaded = ""

    public init(bundle: ClueBundle, engine: any Engine) {
        (self.bundle, self.engine) = (bundle, engine)
    }

    /// A row of logits for each image, by the weights file that has this SHA-256.
    /// - Throws: `ClueError` for images of another size, unusable weights or programs.
    public func logits(_ images: Images, weights: URL, sha256: String) throws -> [[Float]] {
        let size = [images.channels, images.height, images.width]
        guard size == bundle.inputShape else {
            throw ClueError(
                .invalid, "images have channels, height and width \(size): they must have \(bundle.inputShape)")
        }
        try use(weights, sha256)
        let n = images.count
        // A single image left over costs less in predict_1 than in a batch filled up.
        let full = try n % bundle.program("predict").batch == 1 ? n - 1 : n
        return try classify("predict", images, Array(0..<full)) + classify("predict_1", images, Array(full..<n))
    }

    private func use(_ weights: URL, _ sha256: String) throws {
        if sha256 == loaded { return }
        let arrays = try WeightsFile.open(weights, sha256: sha256, bundle: bundle)
        loaded = ""  // until all of them are read
        for value in bundle.values where value.role == "state" {
            let array = state[value.name] ?? FloatArray(shape: value.shape)
            try arrays.read(value.weightsKey ?? value.name, into: array)
            state[value.name] = array
        }
        loaded = sha256
    }

    private func classify(_ name: String, _ images: Images, _ positions: [Int]) throws -> [[Float]] {
        if positions.isEmpty { return [] }
        let classifier: BatchClassifier
        if let known = classifiers[name] {
            classifier = known
        } else {
            classifier = try BatchClassifier(
                program: bundle.program(name), session: bundle.load(name, by: engine))
            classifiers[name] = classifier
        }
        return try classifier.logits(images, positions: positions) { name in
            state[name] ?? FloatArray(shape: [])
        }
    }
}
