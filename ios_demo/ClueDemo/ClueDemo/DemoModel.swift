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
    /// The one opening, whoever asked for it.
    private var opening: Task<Unlearner, any Error>?

    init() { battery.watch() }

    /// Open the bundle that came with the app, once; its copy and the store lie in private folders.
    func open() async {
        guard unlearner == nil else { return }
        stage = .opening
        do {
            _ = try await opened()
        } catch {
            stage = .failed(error.localizedDescription)
        }
    }

    /// The open store, for the views and for the background task.
    func opened() async throws -> Unlearner {
        let task = opening ?? Task { try await make() }
        opening = task
        do {
            return try await task.value
        } catch {
            if opening == task { opening = nil }  // the next one tries again
            throw error
        }
    }

    private func make() async throws -> Unlearner {
        let platform = Platform.apple(battery: battery)
        // hashing and copying the bundle takes too long for the main thread
        let made = try await Task.detached {
            guard let sample = Foundation.Bundle.main.url(forResource: "digits", withExtension: "clue", subdirectory: "Sample") else {
                throw ClueError(.bundle, "the app was built without its sample bundle: run make sample-ios and build it again")
            }
            let place = try PrivateFolder.deliver(sample)
            let bundle = try ClueBundle.open(place)
            let store = try PrivateFolder.make("store")
            let unlearner = try Unlearner(bundle: bundle, store: store, engine: SignpostEngine(try OrtEngine()), platform: platform)
            try? PrivateFolder.eraseOthers(than: place)  // what is left is erased at the next start
            return unlearner
        }.value
        unlearner = made
        classes = made.bundle.classes
        await refresh()
        stage = .ready
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

    /// Store pictures as examples of a class; `unread` more were chosen and could not be had.
    func add(_ pictures: [Data], to name: String, unread: Int = 0) async {
        let added = await attempt { try await $0.add(pictures: pictures, to: name) }
        await refresh()
        if added != nil, unread > 0 {
            tell("\(unread) of \(unread + pictures.count) photos could not be read and were not added: choose them again")
        }
    }

    /// A sentence where a class has examples, but fewer than the method was seen to need.
    func warning(of name: String) -> String? {
        guard let count = counts[name] else { return nil }
        return unlearner?.bundle.warning(stored: count, of: name)
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

    /// Let the run pause at the operation it has come to; what follows it is told when it has.
    func pause() { unlearner?.pause() }

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
        Task {
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
        if let outcome = progress.outcome { return showEnds(outcome, at: progress.done) }
        if let last = points.last, last.step == progress.done { return }
        for (name, value) in progress.metrics.sorted(by: { $0.key < $1.key }) where value.isFinite {
            points.append(point(name, progress.done, value))
        }
    }

    /// The accuracy before and after the run, on both ends of the line that its stops have drawn.
    private func showEnds(_ outcome: Outcome, at last: Int) {
        let (before, after) = (outcome.evidence["forget_accuracy_before"]?.number, outcome.evidence["forget_accuracy_after"]?.number)
        if let before { points.insert(point("forget_accuracy", 0, before), at: 0) }
        if let after { points.append(point("forget_accuracy", last, after)) }
    }

    private func point(_ series: String, _ step: Int, _ value: Double) -> Point {
        Point(id: points.count, series: series, step: step, value: value)
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
