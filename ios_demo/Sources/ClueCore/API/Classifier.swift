import Foundation

/// Answers by the weights that serve at the time of the question. It loads programs and weights when they are first needed; while a
/// request runs, and while its weights are swapped in, it goes on answering, by one generation or the other and never by half of one.
public actor Classifier {
    private let bundle: ClueBundle
    private let folder: URL
    private let platform: Platform
    private let server: WeightsServer
    private var opened: ForgetStore?

    init(bundle: ClueBundle, store folder: URL, engine: any Engine, platform: Platform) {
        (self.bundle, self.folder, self.platform) = (bundle, folder, platform)
        server = WeightsServer(bundle: bundle, engine: engine)
    }

    /// Its own connection, so that a question need not wait for the store's other users.
    private func store() throws -> ForgetStore {
        if let opened { return opened }
        let store = try ForgetStore(folder: folder, bundle: bundle, signers: platform.signers)
        opened = store
        return store
    }

    /// The logits of images at the model's input size, a row for each. Throws ``ClueError`` for another size, or weights that were changed
    /// on the disk.
    public func logits(_ images: Images) throws -> [[Float]] {
        let store = try store()
        let shape = [images.channels, images.height, images.width]
        guard shape == bundle.inputShape else {
            throw ClueError(.invalid, "images are \(shape) (channels, height, width): they must be \(bundle.inputShape)")
        }
        let serving = try store.serving()
        do {
            return try server.logits(images, weights: serving.file, sha256: serving.sha256)
        } catch let error as ClueError {
            // Sealing may erase a generation between the look at the row and at the file: then another one serves.
            let now = try store.serving()
            guard now.id != serving.id else { throw error }
            return try server.logits(images, weights: now.file, sha256: now.sha256)
        }
    }

    /// The class of each image. `forgotten` is what happens where the best class was forgotten.
    ///
    /// Throws ``ClueError`` as ``logits(_:)`` does, and where hiding leaves no class to answer with.
    public func classify(_ images: Images, forgotten choice: ForgottenChoice = .tell) throws -> [Answer] {
        let gone = Set(try store().forgotten())
        return try Answer.of(try logits(images), classes: bundle.classes, forgotten: gone, choice)
    }

    /// The class of each picture (JPEG, PNG ...). Throws as ``classify(_:forgotten:)`` does, and when a picture cannot be read.
    public func classify(pictures: [Data], forgotten choice: ForgottenChoice = .tell) throws -> [Answer] {
        guard let decoder = platform.decoder else {
            throw ClueError(.invalid, "this platform has no decoder for pictures: give pixels")
        }
        let (shape, fit) = (bundle.inputShape, bundle.fit)
        let read = try pictures.map { picture in
            try Resize.fit(
                try decoder.decode(picture, grey: shape[0] == 1), height: shape[1], width: shape[2], rule: fit)
        }
        let images = Images(
            count: read.count, height: shape[1], width: shape[2], channels: shape[0], pixels: read.flatMap(\.pixels))
        return try classify(images, forgotten: choice)
    }
}

extension Answer {
    /// An answer for each row of logits. The first of equal logits is the best; probabilities are the softmax in double.
    static func of(
        _ logits: [[Float]], classes: [String], forgotten: Set<Int>, _ choice: ForgottenChoice
    ) throws -> [Answer] {
        if choice == .hide, forgotten.count == classes.count {
            throw ClueError(
                .invalid, "every class was forgotten: nothing is left to answer with; choose tell or reject")
        }
        return logits.map { row in
            var scores = row.map(Double.init)
            if choice == .hide { for label in forgotten { scores[label] = -.infinity } }
            let best = scores.indices.reduce(0) { scores[$1] > scores[$0] ? $1 : $0 }
            let gone = forgotten.contains(best)
            if gone && choice == .reject { return Answer(label: nil, name: nil, probability: nil, forgotten: true) }
            let sum = scores.reduce(0) { $0 + exp($1 - scores[best]) }
            return Answer(label: best, name: classes[best], probability: 1 / sum, forgotten: gone)
        }
    }
}
