#if canImport(BackgroundTasks) && canImport(UIKit)
    import BackgroundTasks
    import ClueCore
    import Foundation
    import UIKit

    /// Carries out queued requests while the device charges: a `BGProcessingTask` that needs external power and no network.
    ///
    /// The identifier stands in the app's Info.plist (`BGTaskSchedulerPermittedIdentifiers`), with `processing` in `UIBackgroundModes`.
    /// When the system takes the time away, the request pauses at a checkpoint and the next task goes on from there. Each request is tried
    /// once in a task; one that is refused or fails does not hold up the others. Another task is asked for when a request can go on by
    /// itself, another one runs, or the device is locked and the store closed with it; not after an error that would come again.
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
            held.task.expirationHandler = { [weak held] in held?.expire() }
            Task {
                let ending = await work(held)
                // asked for again: what is left of the queue is taken up when there is time and power
                if ending == .again { try? schedule() }
                held.task.setTaskCompleted(success: ending == .finished)
            }
        }

        /// How the system's time was used.
        private enum Ending {
            /// Nothing is left to be run.
            case finished
            /// There is more to do, at a better time.
            case again
            /// Another try would fail in the same way.
            case failed
        }

        private func work(_ held: Held) async -> Ending {
            do {
                let unlearner = try await unlearner()
                guard await isOpen(unlearner.folder) else { return .again }
                held.hold(unlearner)
                let run = unlearner.runQueue()
                // time may have run out before there was a run that could be told
                if held.isExpired { unlearner.pause() }
                var (isForLater, problems) = (false, 0)
                for try await progress in run {
                    isForLater = isForLater || progress.isForLater
                    if progress.problem != nil { problems += 1 }
                }
                if held.isExpired || isForLater { return .again }
                return problems == 0 ? .finished : .failed
            } catch let error as ClueError where error.kind == .busy {
                return .again
            } catch {
                // with complete file protection nothing can be opened while the device is locked
                return await isUnlocked ? .failed : .again
            }
        }

        /// Whether the store can be read now; one of another class than complete also on a device that is locked.
        private func isOpen(_ store: URL) async -> Bool {
            if await isUnlocked { return true }
            let attributes = try? FileManager.default.attributesOfItem(atPath: store.path)
            let found = attributes?[.protectionKey] as? FileProtectionType
            return found?.rawValue != FileProtectionType.complete.rawValue
        }

        private var isUnlocked: Bool { get async { await UIApplication.shared.isProtectedDataAvailable } }

        /// The system's task, which it lets any thread end, and what it runs.
        private final class Held: @unchecked Sendable {
            let task: BGProcessingTask
            private let lock = NSLock()
            private var unlearner: Unlearner?
            private var expired = false

            init(_ task: BGProcessingTask) { self.task = task }

            var isExpired: Bool { lock.withLock { expired } }

            func hold(_ unlearner: Unlearner) { lock.withLock { self.unlearner = unlearner } }

            /// The time is over: the request pauses, and the task ends when it has, with its checkpoint written.
            func expire() {
                let unlearner = lock.withLock {
                    expired = true
                    return self.unlearner
                }
                unlearner?.pause()
            }
        }
    }
#endif
