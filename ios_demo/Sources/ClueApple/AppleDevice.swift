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
    /// | energy | macOS: the process's `ri_energy_nj`; iOS: none, with the battery's level as far as it is known |
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
                model: Self.model() ?? "Apple device", os: "\(Self.system) \(process.operatingSystemVersionString)", soc: nil,
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
            #if os(macOS)
                return nil
            #else
                // 0 where the system sets no limit for this process
                let bytes = os_proc_available_memory()
                return bytes > 0 ? Int(bytes) : nil
            #endif
        }

        /// The kernel's ledger cannot be reset by the process itself.
        public func resetPeakMemory() {}
        public func peakMemory() -> Int { Footprint.read()?.peak ?? 0 }
        public var peakMemorySource: String { "ledger_phys_footprint_peak, since the process began" }

        public var energy: EnergySource {
            #if os(macOS)
                return .counter(name: "ri_energy_nj", scope: "the process: processors", kind: "measured", joules: Self.joules)
            #else
                return .none(reason: Self.noJoules(first: battery.firstLevel, last: battery.level))
            #endif
        }

        /// Why there are no joules, and what is known instead.
        static func noJoules(first: Double?, last: Double?) -> String {
            let reason = "iOS documents no meter in joules"
            guard let first, let last else { return reason }
            let percent = { (level: Double) in "\(Int((100 * level).rounded())) %" }
            return "\(reason); the battery was at \(percent(first)) when the app began and is at \(percent(last))"
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
                let name = "hw.model"
            #else
                let name = "hw.machine"
            #endif
            var size = 0
            guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 1 else { return nil }
            var text = [CChar](repeating: 0, count: size)
            guard sysctlbyname(name, &text, &size, nil, 0) == 0 else { return nil }
            return String(cString: text)
        }
    }
#endif
