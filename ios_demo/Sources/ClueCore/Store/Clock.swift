import Foundation

/// The times that the runtime measures and writes.
enum Clock {
    #if canImport(Darwin)
        // CLOCK_MONOTONIC goes on while the device sleeps there
        private static let awake = CLOCK_UPTIME_RAW
    #else
        private static let awake = CLOCK_MONOTONIC
    #endif

    /// Seconds since some moment, without those that the device slept; it never goes backwards.
    static func seconds() -> Double {
        var time = timespec()
        clock_gettime(awake, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Seconds of processor time that all threads of this process have used.
    static func processorSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// The time as the store and the receipts write it: UTC, ISO 8601, whole seconds.
    static func now() -> String {
        var seconds = time(nil)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let date = "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
        return "\(date)T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))+00:00"
    }
}
