import Foundation

/// Lets a classifier forget: the samples, requests, weights and receipts of one bundle in one store.
///
/// ```swift
/// let unlearner = try Unlearner(bundle: bundle, store: folder, engine: engine, platform: .apple())
/// _ = try await unlearner.add(images, to: "dog")
/// for try await progress in unlearner.forget("dog") { show(progress) }
/// ```
///
/// A request runs on a thread of its own; meanwhile the actor and its ``classifier`` answer as before, by the weights that serve. All
/// functions throw ``ClueError``; what they were to change is then unchanged.
public actor Unlearner {
    /// A run of a request, told as it goes.
    ///
    /// ``pause()`` pauses the request with the reason "stopped", and the last element says so. Leaving the iteration, or cancelling the
    /// task that iterates, does the same, but nobody is told when it has paused. The next ``run(_:)`` goes on from there, to the same
    /// bits. ``cancel(_:)`` ends it for good.
    public typealias Run = AsyncThrowingStream<Progress, any Error>

    /// The bundle that was opened.
    public nonisolated let bundle: ClueBundle
    /// Answers by the weights that serve at the time of the question.
    public nonisolated let classifier: Classifier
    /// The folder of the store.
    public nonisolated let folder: URL
    private nonisolated let engine: any Engine
    private nonisolated let platform: Platform
    private nonisolated let runs = Runs()
    private let store: ForgetStore

    /// Opens the store in `folder`, which is made when it is not there, for a bundle.
    ///
    /// `policy` says what happens when the bundle is a new one whose weights bring back what was forgotten. Throws ``ClueError`` for a
    /// store of another bundle or of a newer version, or one that cannot be read.
    public init(
        bundle: ClueBundle, store folder: URL, engine: any Engine, policy: UpdatePolicy = .refuse, platform: Platform
    ) throws {
        (self.bundle, self.folder, self.engine, self.platform) = (bundle, folder, engine, platform)
        store = try ForgetStore(folder: folder, bundle: bundle, policy: policy, signers: platform.signers)
        classifier = Classifier(bundle: bundle, store: folder, engine: engine, platform: platform)
    }

    private var desk: Desk { Desk(store: store, engine: engine, device: platform.device) }

    // MARK: samples

    /// Stores images of a class at the model's input size. What is returned has a warning where the class has too few.
    public func add(_ images: Images, to className: String) throws -> Added {
        let label = try bundle.label(className)
        let new = try store.add(images, label: label)
        return Added(new, stored: try store.sampleIDs(label: label).count, of: bundle.classes[label], bundle)
    }

    /// Stores pictures (JPEG, PNG ...) of a class, all or none. What is returned has a warning where the class has too few.
    public func add(pictures: [Data], to className: String) throws -> Added {
        let read = try pictures.map(pixels(of:))
        let pixels = read.flatMap(\.pixels)
        let shape = bundle.inputShape
        let images = Images(
            count: read.count, height: shape[1], width: shape[2], channels: read.first?.channels ?? shape[0], pixels: pixels)
        return try add(images, to: className)
    }

    /// A picture as the model takes it (contract/resize.md). Throws ``ClueError`` when it cannot be read.
    public nonisolated func pixels(of picture: Data) throws -> Images {
        guard let decoder = platform.decoder else {
            throw ClueError(.invalid, "this platform has no decoder for pictures: give pixels")
        }
        let shape = bundle.inputShape
        let image = try decoder.decode(picture, grey: shape[0] == 1)
        return try Resize.fit(image, height: shape[1], width: shape[2], rule: bundle.fit)
    }

    /// How many samples each class has, by its name; classes without any are left out.
    public func sampleCounts() throws -> [String: Int] {
        let counts = try store.sampleCounts().map { (bundle.classes[$0], $1) }
        return Dictionary(uniqueKeysWithValues: counts)
    }

    /// The stored samples of a class, oldest first.
    public func samples(of className: String) throws -> [Sample] {
        try store.listed(label: try bundle.label(className))
    }

    // MARK: requests

    /// Queues a request; returns its id. Target, seed (below 2^53; drawn when nil), scalars and options are frozen with it.
    public func submit(
        _ target: ForgetTarget, seed: UInt64? = nil, scalars: [String: Double] = [:], options: Options = .init()
    ) throws -> Int {
        try desk.submit(target, seed: seed, scalars: scalars, options: options)
    }

    /// Makes a request and runs it at once, before what is queued; none is made when another one runs.
    public nonisolated func forget(
        _ target: ForgetTarget, seed: UInt64? = nil, scalars: [String: Double] = [:], options: Options = .init()
    ) -> Run {
        start { turn in
            try turn.run { desk in try desk.submit(target, seed: seed, scalars: scalars, options: options) }
        }
    }

    /// Runs a queued request, or lets a paused one go on from its checkpoint.
    public nonisolated func run(_ request: Int) -> Run { start { turn in try turn.run { _ in request } } }

    /// Runs every request whose turn it is, oldest first, each once: those that are queued, or paused by what is over.
    ///
    /// One that is refused, breaks or pauses does not hold up the others; its last element has the ``Progress/problem`` or the
    /// ``Progress/outcome``. No element when there is none to be run. ``pause()`` ends the round with the request that runs. Throws what
    /// concerns no single request: another process runs one (kind `busy`), or the store cannot be read.
    public nonisolated func runQueue() -> Run {
        // the last element of every request is kept, however late it is looked at
        start(buffering: .unbounded) { turn in try turn.runQueue() }
    }

    /// Asks what this object runs to pause: it does so before its next operation, and its stream ends with that outcome.
    public nonisolated func pause() { runs.pause() }

    /// Cancels a request; true when it has ended, false when what runs it was asked to end it, which it does within a second.
    public func cancel(_ request: Int) throws -> Bool { try desk.cancel(request) }

    /// Queues a request like one that has ended, by default with a new seed; returns the new one's id.
    public func retry(_ request: Int, seed: UInt64? = nil) throws -> Int { try desk.retry(request, seed: seed) }

    /// Every request, oldest first.
    public func requests() throws -> [Request] { try store.requests() }

    /// The state of a request; one whose process died is paused.
    public func status(of request: Int) throws -> RequestStatus { try store.status(request) }

    /// What a request would take at most, without running it.
    public func estimate(_ target: ForgetTarget, scalars: [String: Double] = [:]) throws -> RequestEstimate {
        let samples =
            switch target {
            case .samples(let ids): ids.count
            case .classNamed(let name): try store.sampleIDs(label: try bundle.label(name)).count
            }
        return try RequestEstimate(
            store: store, engine: engine, samples: samples, scalars: try bundle.merged(scalars: scalars))
    }

    // MARK: weights

    /// The names of the classes that are forgotten.
    public func forgottenClasses() throws -> [String] { try store.forgotten().map { bundle.classes[$0] } }

    /// Every generation of weights, oldest first.
    public func generations() throws -> [Generation] { try store.generations() }

    /// Lets a kept generation serve; returns the requests that lost their effect by it. Nothing is erased.
    public func rollback(to generation: Int) throws -> [Int] { try store.rollback(to: generation) }

    /// What sealing a request would erase.
    public func sealPlan(_ request: Int) throws -> SealPlan { try store.sealPlan(request) }

    /// Makes a request's effect final: its samples, their keys and the weights from before are erased. Returns what could not be.
    public func seal(_ request: Int) throws -> [NotErased] { try store.seal(request) }

    // MARK: records

    /// Every receipt, oldest first.
    public func receipts() throws -> [Receipt] { try store.receipts() }

    /// What requests have cost.
    public func costs() throws -> CostLog { CostLog(try store.records()) }

    // MARK: the thread of a request

    /// Does `work` on a thread and a store of its own.
    private nonisolated func start(
        buffering: Run.Continuation.BufferingPolicy = .bufferingNewest(64), _ work: @escaping @Sendable (Turn) throws -> Void
    ) -> Run {
        let (bundle, folder, engine, platform, runs) = (bundle, folder, engine, platform, runs)
        return Run(bufferingPolicy: buffering) { continuation in
            let stop = runs.begin()
            continuation.onTermination = { _ in stop.raise() }
            let thread = Thread {
                defer { runs.end(stop) }
                do {
                    let store = try ForgetStore(folder: folder, bundle: bundle, signers: platform.signers)
                    defer { store.close() }
                    let desk = Desk(store: store, engine: engine, device: platform.device)
                    try work(Turn(desk: desk, stop: stop) { continuation.yield($0) })
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            thread.name = "forget"
            // Programs of an engine may need more than a thread's usual 512 KiB.
            thread.stackSize = 4 << 20
            thread.qualityOfService = .utility
            thread.start()
        }
    }
}
