#if canImport(Darwin)
    import Darwin
    import Foundation

    /// The version of Apple's system, in the same words in every language of the device.
    package enum SystemVersion {
        /// Numbers and build, such as 17.5.1 (21F90).
        package static var text: String {
            let version = ProcessInfo.processInfo.operatingSystemVersion
            let numbers = "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
            return told("kern.osversion").map { "\(numbers) (\($0))" } ?? numbers
        }

        /// What the kernel tells under a name; nil where it has no such text.
        package static func told(_ name: String) -> String? {
            var size = 0
            guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 1 else { return nil }
            var text = [CChar](repeating: 0, count: size)
            guard sysctlbyname(name, &text, &size, nil, 0) == 0 else { return nil }
            return String(cString: text)
        }
    }
#endif
