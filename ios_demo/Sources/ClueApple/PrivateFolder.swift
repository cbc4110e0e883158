#if canImport(Darwin)
    import ClueCore
    import Foundation

    /// Folders of an app that no other app, no backup and, while it is locked, nobody who holds the device can read.
    public enum PrivateFolder {
        /// `Application Support/NAME`, made with this protection where it is not there yet.
        ///
        /// With `.complete`, which docs/runtime-contract.md asks for, the files are closed while the device is locked: requests run while
        /// the app is in use. With `.completeUntilFirstUserAuthentication` a background task may also run on a locked device.
        /// - Throws: ``ClueError`` of kind `storage`.
        public static func make(_ name: String, protection: FileProtectionType = .complete) throws -> URL {
            do {
                let support = try FileManager.default.url(
                    for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
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
        /// What is part of an app cannot be erased, so sealing would leave the original weights on the device. Ship the bundle
        /// without `weights.safetensors` and download that file into the copy where this matters (docs/ios.md).
        /// - Throws: ``ClueError`` of kind `storage`, also when there is no space.
        public static func deliver(_ bundle: URL, protection: FileProtectionType = .complete) throws -> URL {
            let place = try make("bundles", protection: protection).appendingPathComponent(bundle.lastPathComponent, isDirectory: true)
            let manager = FileManager.default
            guard !manager.fileExists(atPath: place.path) else { return place }
            let part = place.appendingPathExtension("part")
            do {
                if manager.fileExists(atPath: part.path) { try manager.removeItem(at: part) }
                try manager.copyItem(at: bundle, to: part)
                try protect(part, protection)
                try manager.moveItem(at: part, to: place)
                return place
            } catch {
                throw ClueError(.storage, "the bundle cannot be copied to \(place.path): \(error.localizedDescription)")
            }
        }

        /// Copies keep the class of what they were copied from.
        private static func protect(_ folder: URL, _ protection: FileProtectionType) throws {
            try FileManager.default.setAttributes([.protectionKey: protection], ofItemAtPath: folder.path)
            let paths = FileManager.default.enumerator(atPath: folder.path)
            while let path = paths?.nextObject() as? String {
                try FileManager.default.setAttributes(
                    [.protectionKey: protection], ofItemAtPath: folder.appendingPathComponent(path).path)
            }
        }
    }
#endif
