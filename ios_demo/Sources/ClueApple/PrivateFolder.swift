#if canImport(Darwin)
    import ClueCore
    import Foundation

    /// Folders of an app that no other app, no backup and, while it is locked, nobody who holds the device can read.
    public enum PrivateFolder {
        /// `Application Support/NAME`, made with this protection where it is not there yet; on a Mac `Application Support/APP/NAME`, where
        /// APP is the app's bundle identifier, since apps without a sandbox share the folder.
        ///
        /// With `.complete`, which docs/runtime-contract.md asks for, the files are closed while the device is locked: requests run while
        /// the app is in use. With `.completeUntilFirstUserAuthentication` a background task may also run on a locked device.
        /// - Throws: ``ClueError`` of kind `storage`.
        public static func make(_ name: String, protection: FileProtectionType = .complete) throws -> URL {
            do {
                var support = try FileManager.default.url(
                    for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
                #if os(macOS)
                    support.appendPathComponent(Foundation.Bundle.main.bundleIdentifier ?? ProcessInfo.processInfo.processName)
                #endif
                var folder = support.appendingPathComponent(name, isDirectory: true)
                try FileManager.default.createDirectory(
                    at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700, .protectionKey: protection])
                // files that are made in the folder have its class; the folder may be older than this choice
                try FileManager.default.setAttributes([.protectionKey: protection], ofItemAtPath: folder.path)
                var values = URLResourceValues()
                values.isExcludedFromBackup = true
                try folder.setResourceValues(values)
                return folder
            } catch {
                throw ClueError(.storage, "the private folder \(name) cannot be made: \(error.localizedDescription)")
            }
        }

        /// Copy a bundle that came with the app into the private folder `bundles`, once, and give its place there.
        ///
        /// The copy is named by the manifest's hash: a new version of the app with another bundle gets a copy of its own. The older one
        /// stays until ``eraseOthers(than:)``, as the app may go on with it where the store refuses the new one. With the protection
        /// `.complete` it cannot be read while the device is locked; a background task that runs then needs the class of the store.
        ///
        /// What is part of an app cannot be erased, so sealing would leave the original weights on the device. Ship the bundle
        /// without `weights.safetensors` and download that file into the copy where this matters (docs/ios.md).
        /// - Throws: ``ClueError`` of kind `storage`, also when there is no space.
        public static func deliver(_ bundle: URL, protection: FileProtectionType = .complete) throws -> URL {
            let hash = try RegularFile.sha256(bundle.appendingPathComponent("manifest.json"))
            let name = "\(bundle.deletingPathExtension().lastPathComponent)-\(hash.prefix(16)).\(bundle.pathExtension)"
            let place = try make("bundles", protection: protection).appendingPathComponent(name, isDirectory: true)
            let part = place.appendingPathExtension("part")
            let manager = FileManager.default
            // one at a time: two would write the same part
            return try delivering.withLock {
                guard !manager.fileExists(atPath: place.path) else { return place }
                do {
                    if manager.fileExists(atPath: part.path) { try manager.removeItem(at: part) }
                    try manager.copyItem(at: bundle, to: part)
                    try settle(part, protection)
                    try manager.moveItem(at: part, to: place)
                } catch {
                    throw ClueError(.storage, "the bundle cannot be copied to \(place.path): \(error.localizedDescription)")
                }
                guard Files.sync(place.deletingLastPathComponent()) else { throw unflushed(place) }
                return place
            }
        }

        /// Erase the copies of other bundles, their weights overwritten: once the store has been opened with this one.
        /// - Parameter place: what ``deliver(_:protection:)`` gave.
        /// - Throws: ``ClueError`` of kind `storage`; what is left is erased by the next call.
        public static func eraseOthers(than place: URL) throws {
            let folder = place.deletingLastPathComponent()
            try delivering.withLock {
                do {
                    for name in try FileManager.default.contentsOfDirectory(atPath: folder.path)
                    where name != place.lastPathComponent && !name.hasPrefix(".") {
                        let other = folder.appendingPathComponent(name, isDirectory: true)
                        try Files.erase(other.appendingPathComponent("weights.safetensors"))
                        try FileManager.default.removeItem(at: other)
                    }
                } catch {
                    throw ClueError(.storage, "an older bundle in \(folder.path) cannot be erased: \(error.localizedDescription)")
                }
            }
        }

        private static let delivering = NSLock()

        /// Copies keep the class of what they were copied from, and are not on the disk yet.
        private static func settle(_ folder: URL, _ protection: FileProtectionType) throws {
            var places = [folder]
            let paths = FileManager.default.enumerator(atPath: folder.path)
            while let path = paths?.nextObject() as? String { places.append(folder.appendingPathComponent(path)) }
            for place in places.reversed() {
                try FileManager.default.setAttributes([.protectionKey: protection], ofItemAtPath: place.path)
                guard Files.sync(place) else { throw unflushed(place) }
            }
        }

        private static func unflushed(_ place: URL) -> ClueError {
            ClueError(.storage, "\(place.path) cannot be flushed to the disk")
        }
    }
#endif
