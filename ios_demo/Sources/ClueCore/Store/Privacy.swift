import Foundation

/// A store is its owner's alone: whose it is, who else could read or change it; looked at when it is opened.
enum Privacy {
    /// Closes to others what they may only read.
    ///
    /// Throws ``ClueError`` where something belongs to another user, is a link or no plain file or folder, or where others may
    /// write: then what the store holds may not be its owner's any more.
    static func check(_ folder: URL) throws {
        var status = stat()
        guard stat(folder.path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return }
        try check(folder, status)
        // The store's folders have no folders of their own.
        for path in try inside(folder) {
            // Gone: another process has just finished with a temporary file.
            guard lstat(path.path, &status) == 0 else { continue }
            try check(path, status)
            guard status.st_mode & S_IFMT == S_IFDIR else { continue }
            for path in try inside(path) where lstat(path.path, &status) == 0 { try check(path, status) }
        }
    }

    /// Makes a folder that only its owner can use; on phones also unreadable while the device is locked, and in no backup. One that is
    /// there keeps the class of protection that the app gave it, and a folder in the store takes the store's.
    static func makeFolder(_ folder: URL, inStore: Bool = false) throws {
        let made = mkdir(folder.path, 0o700) == 0
        if !made && errno != EEXIST {
            throw ClueError.system("cannot use the store \(folder.path)")
        }
        #if os(iOS)
            do {
                // New files in it take the folder's class of protection.
                if made && !inStore {
                    try FileManager.default.setAttributes([.protectionKey: FileProtectionType.complete], ofItemAtPath: folder.path)
                }
                var place = folder
                var values = URLResourceValues()
                values.isExcludedFromBackup = true
                try place.setResourceValues(values)
            } catch {
                throw ClueError(.storage, "the store \(folder.path) cannot be made private: \(error.localizedDescription)")
            }
        #endif
    }

    private static func inside(_ folder: URL) throws -> [URL] {
        do {
            return try FileManager.default.contentsOfDirectory(atPath: folder.path).map(folder.appendingPathComponent)
        } catch {
            throw ClueError(.storage, "cannot check the store \(folder.path): \(error.localizedDescription)")
        }
    }

    private static func check(_ path: URL, _ status: stat) throws {
        let kind = status.st_mode & S_IFMT
        guard kind == S_IFREG || kind == S_IFDIR else {
            throw ClueError(
                .storage, "\(path.path) in the store is a link or a special file: a store has none, remove it")
        }
        guard status.st_uid == geteuid() else {
            throw ClueError(
                .storage, "\(path.path) belongs to user \(status.st_uid), not to user \(geteuid()) who runs this: use another store")
        }
        guard status.st_mode & 0o022 == 0 else {
            throw ClueError(
                .storage, "others may write to \(path.path), so the store may have been changed: use another store")
        }
        if status.st_mode & 0o055 != 0 { chmod(path.path, kind == S_IFDIR ? 0o700 : 0o600) }
    }
}
