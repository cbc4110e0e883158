import ClueApple
import ClueCore
import ClueOrt
import Combine
import Foundation
import UIKit

/// What the views show, and the way from their buttons to the ``Unlearner``.
@MainActor final class DemoModel: ObservableObject {
    enum Stage {
        case opening
        case failed(String)
        case ready
    }

    /// A figure of a run at one of its operations.
    struct Point: Identifiable {
        let id: Int
        let series: String
        let step: Int
        let value: Double
    }

    @Published private(set) var stage = Stage.opening
    @Published private(set) var classes: [String] = []
    @Published private(set) var counts: [String: Int] = [:]
    @Published private(set) var forgotten: Set<String> = []
    @Published private(set) var requests: [Request] = []
    @Published private(set) var generations: [Generation] = []
    @Published private(set) var receipts: [Receipt] = []
    @Published private(set) var costs: [CostRecord] = []
    @Published private(set) var progress: Unlearner.Progress?
    @Published private(set) var points: [Point] = []
    @Published private(set) var isRunning = false
    @Published var showsMessage = false
    private(set) var message = ""

    private let battery = Battery()
    private var unlearner: Unlearner?
    private var run: Task<Void, Never>?

    /// Open the bundle that came with the app, once; its copy and the store lie in private folders.
    func open() async {
        guard unlearner == nil else { return }
        stage = .opening
        do {
            _ = try await opened()
            stage = .ready
        } catch {
            stage = .failed(error.localizedDescription)
        }
    }

    /// The open store, for the views and for the background task.
    func opened() async throws -> Unlearner {
        if let unlearner { return unlearner }
        battery.watch()
        let platform = Platform.apple(battery: battery)
        // hashing and copying the bundle takes too long for the main thread
        let made = try await Task.detached {
            guard let sample = Foundation.Bundle.main.url(forResource: "digits", withExtension: "clue", subdirectory: "Sample") else {
                throw ClueError(.bundle, "the app was built without its sample bundle: run make sample-ios and build it again")
            }
            let bundle = try ClueBundle.open(try PrivateFolder.deliver(sample))
            let store = try PrivateFolder.make("store")
            return try Unlearner(bundle: bundle, store: store, engine: SignpostEngine(try OrtEngine()), platform: platform)
        }.value
        if let unlearner { return unlearner }
        unlearner = made
        classes = made.bundle.classes
        await refresh()
        return made
    }

    /// Read again what the store has.
    func refresh() async {
        guard let unlearner else { return }
        do {
            counts = try await unlearner.sampleCounts()
            forgotten = Set(try await unlearner.forgottenClasses())
            requests = try await unlearner.requests().reversed()
            generations = try await unlearner.generations()
            receipts = try await unlearner.receipts().reversed()
            costs = try await unlearner.costs().records
        } catch {
            tell(error)
        }
    }

    /// What the classifier says of a picture.
    func classify(_ picture: Data) async -> Answer? {
        await attempt { try await $0.classifier.classify(pictures: [picture])[0] }
    }

    /// Store pictures as examples of a class.
    func add(_ pictures: [Data], to name: String) async {
        await attempt { _ = try await $0.add(pictures: pictures, to: name) }
        await refresh()
    }

    /// Store the examples of a class that came with the app.
    func addSamples(of name: String) async {
        let folder = Foundation.Bundle.main.bundleURL.appendingPathComponent("Sample/images/\(name)")
        do {
            let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            await add(try files.filter { $0.pathExtension == "png" }.map { try Data(contentsOf: $0) }, to: name)
        } catch {
            tell(error)
        }
    }

    func forget(_ name: String) { follow { $0.forget(.classNamed(name)) } }
    func resume(_ request: Int) { follow { $0.run(request) } }

    /// Queue a request for the background task.
    func submit(_ name: String) async {
        await attempt { _ = try await $0.submit(.classNamed(name)) }
        await refresh()
    }

    /// Let the run pause at the operation it has come to.
    func pause() { run?.cancel() }

    func cancel(_ request: Int) async {
        await attempt { _ = try await $0.cancel(request) }
        await refresh()
    }

    func rollback(to generation: Int) async {
        await attempt { _ = try await $0.rollback(to: generation) }
        await refresh()
    }

    /// Make a request's effect final; tells what could not be erased.
    func seal(_ request: Int) async {
        let left = await attempt { try await $0.seal(request) } ?? []
        await refresh()
        if !left.isEmpty {
            tell("Sealed. Not erased: " + left.map { "\($0.path) (\($0.reason))" }.joined(separator: ", "))
        }
    }

    /// Show a sentence.
    func tell(_ error: any Error) { tell(error.localizedDescription) }

    private func tell(_ text: String) {
        message = text
        showsMessage = true
    }

    /// Follow a run to its end, with the screen on: while the device is locked, the store is closed.
    private func follow(_ start: @escaping @Sendable (Unlearner) -> Unlearner.Run) {
        guard let unlearner, !isRunning else { return }
        isRunning = true
        (points, progress) = ([], nil)
        UIApplication.shared.isIdleTimerDisabled = true
        run = Task {
            do {
                for try await progress in start(unlearner) { show(progress) }
            } catch {
                tell(error)
            }
            UIApplication.shared.isIdleTimerDisabled = false
            isRunning = false
            await refresh()
        }
    }

    private func show(_ progress: Unlearner.Progress) {
        self.progress = progress
        if progress.outcome == nil, let last = points.last, last.step == progress.done { return }
        for (name, value) in progress.metrics.sorted(by: { $0.key < $1.key }) where value.isFinite {
            points.append(Point(id: points.count, series: name, step: progress.done, value: value))
        }
    }

    @discardableResult
    private func attempt<T: Sendable>(_ body: @Sendable (Unlearner) async throws -> T) async -> T? {
        guard let unlearner else { return nil }
        do {
            return try await body(unlearner)
        } catch {
            tell(error)
            return nil
        }
    }
}
