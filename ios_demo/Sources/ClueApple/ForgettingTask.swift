#if canImport(BackgroundTasks) && canImport(UIKit)
    import BackgroundTasks
    import ClueCore
    import Foundation
    import UIKit

    /// Carries out queued requests while the device charges: a `BGProcessingTask` that needs external power and no network.
    ///
    /// The identifier stands in the app's Info.plist (`BGTaskSchedulerPermittedIdentifiers`), with `processing` in `UIBackgroundModes`.
    /// When the system takes the time away, the request pauses at a checkpoint and the next task goes on from there.
    public struct ForgettingTask: Sendable {
        public let identifier: String
        private let unlearner: @Sendable () async throws -> Unlearner

        /// - Parameter unlearner: opens, or gives, the store of the app.
        public init(identifier: String, unlearner: @escaping @Sendable () async throws -> Unlearner) {
            (self.identifier, self.unlearner) = (identifier, unlearner)
        }

        /// Tell the system of the task; before the app has finished launching, and once.
        /// - Returns: false when the identifier does not stand in Info.plist.
        @discardableResult public func register() -> Bool {
            BGTaskScheduler.shared.register(forTaskWithIdentifier: identifier, using: nil) { task in
                guard let task = task as? BGProcessingTask else { return task.setTaskCompleted(success: false) }
                start(Held(task))
            }
        }

        /// Ask for time, with external power and without the network. A task that was asked for before is replaced.
        /// - Throws: ``ClueError`` of kind `invalid` when the system takes no task, as in a simulator.
        public func schedule() throws {
            let request = BGProcessingTaskRequest(identifier: identifier)
            request.requiresExternalPower = true
            request.requiresNetworkConnectivity = false
            do {
                try BGTaskScheduler.shared.submit(request)
            } catch {
                throw ClueError(.invalid, "the system takes no background task \(identifier): \(error.localizedDescription)")
            }
        }

        private func start(_ held: Held) {
            let work = Task {
                do {
                    try await run()
                    held.task.setTaskCompleted(success: true)
                } catch {
                    // asked for again: what is left of the queue is taken up when there is time and power
                    try? schedule()
                    held.task.setTaskCompleted(success: false)
                }
            }
            held.task.expirationHandler = { work.cancel() }
        }

        private func run() async throws {
            // with complete file protection nothing can be opened while the device is locked
            guard await UIApplication.shared.isProtectedDataAvailable else {
                throw ClueError(.storage, "the store is closed while the device is locked")
            }
            let unlearner = try await unlearner()
            while true {
                var outcome: Outcome?
                for try await progress in unlearner.runNext() { outcome = progress.outcome ?? outcome }
                try Task.checkCancellation()
                guard let outcome else { return }  // nothing is left to be run
                guard outcome.status.isFinal else { throw ClueError(.transition, outcome.reason ?? "the request paused") }
            }
        }

        /// The system's task, which it lets any thread end.
        private struct Held: @unchecked Sendable {
            let task: BGProcessingTask

            init(_ task: BGProcessingTask) { self.task = task }
        }
    }
#endif
