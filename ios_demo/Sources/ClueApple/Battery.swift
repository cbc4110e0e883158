#if canImport(Darwin)
    import Foundation
    #if canImport(UIKit)
        import UIKit
    #endif

    /// What the battery said last. UIKit answers on the main actor only, so its notifications are kept here for whoever asks.
    public final class Battery: @unchecked Sendable {
        private let lock = NSLock()
        private var last: (level: Double?, plugged: Bool?) = (nil, nil)

        /// From 0 to 1; nil where the device does not tell. iPhones round it to a few percent.
        public var level: Double? { lock.withLock { last.level } }
        /// Whether an external supply is connected; nil where the device does not tell.
        public var plugged: Bool? { lock.withLock { last.plugged } }

        public init() {}

        #if canImport(UIKit)
            /// Begin to follow the device's battery. Called once, by the app when it starts.
            @MainActor public func watch() {
                let device = UIDevice.current
                device.isBatteryMonitoringEnabled = true
                read(device)
                for name in [UIDevice.batteryLevelDidChangeNotification, UIDevice.batteryStateDidChangeNotification] {
                    _ = NotificationCenter.default.addObserver(forName: name, object: nil, queue: .main) { [weak self] _ in
                        MainActor.assumeIsolated { self?.read(UIDevice.current) }
                    }
                }
            }

            @MainActor private func read(_ device: UIDevice) {
                // the level is -1 where it is not known, as in a simulator
                let level = device.batteryLevel < 0 ? nil : Double(device.batteryLevel)
                let plugged: Bool? =
                    switch device.batteryState {
                    case .charging, .full: true
                    case .unplugged: false
                    default: nil
                    }
                lock.withLock { last = (level, plugged) }
            }
        #endif
    }
#endif
