#if os(Linux)
    import Foundation

    /// What a Linux computer tells of itself in its kernel's files: for the tests of this package, which run there.
    public struct LinuxDevice: DeviceMonitor {
        public init() {}

        public var facts: DeviceFacts {
            let release = Self.text("/etc/os-release").split(separator: "\n")
            let name = release.first { $0.hasPrefix("PRETTY_NAME=") }?.dropFirst(12).filter { $0 != "\"" }
            let model = Self.text("/sys/class/dmi/id/product_name").split(separator: "\n").first.map(String.init)
            return DeviceFacts(
                model: model ?? "computer", os: name ?? "Linux", soc: nil,
                ramBytes: Int(ProcessInfo.processInfo.physicalMemory))
        }

        public func temperature() -> Double? {
            Double(Self.text("/sys/class/thermal/thermal_zone0/temp").filter { !$0.isWhitespace }).map { $0 / 1000 }
        }

        public func throttled() -> Bool? { nil }
        public func frequency() -> Double? {
            let path = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
            return Double(Self.text(path).filter { !$0.isWhitespace }).map { $0 / 1000 }
        }
        public func plugged() -> Bool? { nil }
        public func overheated() -> String? { nil }
        public func availableMemory() -> Int? { Self.kibibytes("MemAvailable:", in: "/proc/meminfo") }

        public func resetPeakMemory() {
            // Where the kernel does not allow it the figure goes further back; `peakMemorySource` says so.
            let descriptor = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else { return }
            _ = write(descriptor, "5", 1)
            close(descriptor)
        }

        public func peakMemory() -> Int { Self.kibibytes("VmHWM:", in: "/proc/self/status") ?? 0 }

        public var peakMemorySource: String {
            access("/proc/self/clear_refs", W_OK) == 0 ? "VmHWM" : "VmHWM, not reset"
        }

        public var energy: EnergySource { .none { "no meter is read on this computer" } }

        private static func text(_ path: String) -> String {
            (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        }

        private static func kibibytes(_ name: String, in path: String) -> Int? {
            let line = text(path).split(separator: "\n").first { $0.hasPrefix(name) }
            return line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 1024 }
        }
    }
#endif
