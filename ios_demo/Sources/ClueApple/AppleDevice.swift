#if canImport(Darwin)
    import ClueCore
    import Darwin
    import Foundation
    import os

    /// An iPhone, iPad or Mac as the runtime asks for it. What the system does not document is nil or a reason, never a guess.
    ///
    /// | asked | answer |
    /// |---|---|
    /// | temperature, clock | nil: no public interface has degrees or megahertz |
    /// | too hot | `ProcessInfo.thermalState` is serious or critical |
    /// | memory that is left | `os_proc_available_memory()`, iOS only |
    /// | peak memory | the kernel's ledger of the footprint, since the process began |
    /// | energy | macOS: the process's `ri_energy_nj`; iOS: none, with the battery's levels as far as they are known |
    public struct AppleDevice: DeviceMonitor {
        public let facts: DeviceFacts
        public let battery: Battery
        private let thermalState: @Sendable () -> ProcessInfo.ThermalState

        /// - Parameter battery: what follows the battery; call its `watch()` on the main actor.
        public init(battery: Battery = Battery()) {
            self.init(battery: battery) { ProcessInfo.processInfo.thermalState }
        }

        init(battery: Battery, thermalState: @escaping @Sendable () -> ProcessInfo.ThermalState) {
            self.battery = battery
            self.thermalState = thermalState
            let process = ProcessInfo.processInfo
            facts = DeviceFacts(
                model: Self.model() ?? "Apple device", os: "\(Self.system) \(SystemVersion.text)", soc: nil,
                ramBytes: Int(process.physicalMemory))
        }

        public func temperature() -> Double? { nil }
        public func frequency() -> Double? { nil }
        public func plugged() -> Bool? { battery.plugged }

        /// From the state serious on the system lowers the performance of apps, as Apple documents.
        public func throttled() -> Bool? { overheated() != nil }

        public func overheated() -> String? {
            switch thermalState() {
            case .serious: "the system's thermal state is serious"
            case .critical: "the system's thermal state is critical"
            default: nil
            }
        }

        public func availableMemory() -> Int? {
            #if os(macOS) || targetEnvironment(simulator)
                return nil
            #else
                // a Mac sets no limit for an app of iOS; elsewhere 0 means that nothing is left
                return ProcessInfo.processInfo.isiOSAppOnMac ? nil : Int(os_proc_available_memory())
            #endif
        }

        /// The kernel's ledger cannot be reset by the process itself.
        public func resetPeakMemory() {}
        public func peakMemory() -> Int { Footprint.peak() ?? 0 }
        public var peakMemorySource: String { "ledger_phys_footprint_peak, since the process began" }

        public var energy: EnergySource {
            #if os(macOS)
                return .counter(name: "ri_energy_nj", scope: "the process: processors", kind: "measured", joules: Self.joules)
            #else
                // read when a run begins, asked when its cost goes on record
                let (battery, first) = (battery, battery.level)
                return .none { Self.noJoules(first: first, last: battery.level) }
            #endif
        }

        /// Why there are no joules, and what is known instead.
        static func noJoules(first: Double?, last: Double?) -> String {
            let reason = "iOS documents no meter in joules"
            guard let first, let last else { return reason }
            let percent = { (level: Double) in "\(Int((100 * level).rounded())) %" }
            return "\(reason); the battery was at \(percent(first)) when the run began and at \(percent(last)) when it ended"
        }

        #if os(macOS)
            private static let system = "macOS"

            /// The energy that the kernel has counted for this process, in joules.
            @Sendable private static func joules() -> Double? {
                var usage = rusage_info_v6()
                let status = withUnsafeMutablePointer(to: &usage) {
                    $0.withMemoryRebound(to: rusage_info_t?.self, capacity: 1) { proc_pid_rusage(getpid(), RUSAGE_INFO_V6, $0) }
                }
                // a Mac without the counter says 0 for ever
                return status == 0 && usage.ri_energy_nj > 0 ? Double(usage.ri_energy_nj) / 1e9 : nil
            }
        #else
            private static let system = "iOS"
        #endif

        /// The model's identifier, such as iPhone16,1.
        private static func model() -> String? {
            #if os(macOS)
                return SystemVersion.told("hw.model")
            #else
                return SystemVersion.told("hw.machine")
            #endif
        }
    }
#endif
