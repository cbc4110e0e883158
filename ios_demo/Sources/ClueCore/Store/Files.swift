import Foundation

/// Files that must survive a power cut: written beside their place, flushed to the disk, then renamed; and their end: overwritten.
package enum Files {
    /// Takes the pieces of a file in order.
    typealias Sink = (UnsafeRawBufferPointer) throws -> Void

    /// Writes a file, which then exists whole or not at all, readable by its owner only; returns its SHA-256 in hex.
    ///
    /// `body` is given a function that takes the pieces in order. Throws ``ClueError`` when `path` exists (unless `replace`: then it
    /// has the old content or the new one, whole) or any step fails; what was written is then removed.
    @discardableResult
    static func write(_ path: URL, replace: Bool = false, _ body: (Sink) throws -> Void) throws -> String {
        if !replace, exists(path) {
            throw ClueError(.storage, "cannot write \(path.path): it exists already")
        }
        let temporary = path.path + ".part"
        var digest = Sha256()
        do {
            let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw failed("create", path) }
            do {
                defer { close(descriptor) }
                try body { piece in
                    guard writeAll(descriptor, piece) else { throw failed("write", path) }
                    digest.update(piece)
                }
                guard flush(descriptor) else { throw failed("flush", path) }
            }
            guard rename(temporary, path.path) == 0 else { throw failed("rename", path) }
            guard sync(path.deletingLastPathComponent()) else { throw failed("flush the folder of", path) }
        } catch {
            unlink(temporary)
            if !replace { unlink(path.path) }
            throw error
        }
        return digest.digest.hex
    }

    /// `write` for content that is in memory.
    @discardableResult
    package static func write(_ path: URL, replace: Bool = false, bytes: [UInt8]) throws -> String {
        try write(path, replace: replace) { sink in try bytes.withUnsafeBytes(sink) }
    }

    /// Overwrites a file with zeros, flushes it and removes it; one that is not there is fine.
    ///
    /// Spare blocks of flash storage may keep the old content. A link is removed, not what it leads to. Throws ``ClueError`` when a
    /// step fails; done again, it goes on.
    package static func erase(_ path: URL) throws {
        let descriptor = open(path.path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC)
        if descriptor < 0 {
            if errno == ENOENT { return }
            guard errno == ELOOP else { throw failedToErase(path) }
        } else {
            defer { close(descriptor) }
            guard zero(descriptor) else { throw failedToErase(path) }
        }
        guard unlink(path.path) == 0 || errno == ENOENT, sync(path.deletingLastPathComponent()) else {
            throw failedToErase(path)
        }
    }

    /// Overwrites a file with zeros, flushes it and cuts it to nothing; the empty file stays.
    static func hollow(_ path: URL) throws {
        let descriptor = open(path.path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { throw failedToErase(path) }
        defer { close(descriptor) }
        guard zero(descriptor), ftruncate(descriptor, 0) == 0, flush(descriptor) else { throw failedToErase(path) }
    }

    /// Appends lines and flushes them; what fails half way is cut off again. A line that a power cut left unfinished stays one of its
    /// own.
    static func append(_ path: URL, lines: String) throws {
        let failure = { ClueError.system("cannot append to \(path.path)") }
        let descriptor = open(path.path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure() }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure() }
        var last: UInt8 = 0x0A
        if status.st_size > 0, pread(descriptor, &last, 1, status.st_size - 1) != 1 { throw failure() }
        let text = (last == 0x0A ? "" : "\n") + lines + "\n"
        let written = Array(text.utf8).withUnsafeBytes { writeAll(descriptor, $0) }
        guard written, flush(descriptor) else {
            let error = failure()
            ftruncate(descriptor, status.st_size)
            throw error
        }
    }

    /// Whether something has this name, a broken link too.
    static func exists(_ path: URL) -> Bool {
        var status = stat()
        return lstat(path.path, &status) == 0
    }

    /// The files of a folder by their names, in order; folders in it are left out.
    static func names(in folder: URL) throws -> [String] {
        do {
            return try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().filter { name in
                var status = stat()
                let path = folder.appendingPathComponent(name).path
                return lstat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFDIR
            }
        } catch {
            throw ClueError(.storage, "cannot read the folder \(folder.path): \(error.localizedDescription)")
        }
    }

    /// Flushes a file, or the names in a folder.
    package static func sync(_ path: URL) -> Bool {
        let descriptor = open(path.path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return flush(descriptor)
    }

    private static func flush(_ descriptor: Int32) -> Bool {
        #if canImport(Darwin)
            // fsync leaves the content in the drive's own cache there.
            if fcntl(descriptor, F_FULLFSYNC) == 0 { return true }
        #endif
        return fsync(descriptor) == 0
    }

    private static func writeAll(_ descriptor: Int32, _ piece: UnsafeRawBufferPointer) -> Bool {
        var left = piece[...]
        while !left.isEmpty {
            let rest = UnsafeRawBufferPointer(rebasing: left)
            let count = Foundation.write(descriptor, rest.baseAddress!, rest.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return false }
            left = left.dropFirst(count)
        }
        return true
    }

    private static func zero(_ descriptor: Int32) -> Bool {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return false }
        var left = Int(status.st_size)
        let zeros = [UInt8](repeating: 0, count: min(left, 1 << 20))
        while left > 0 {
            let count = zeros.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress!, min(left, $0.count)) }
            guard count > 0 else { return false }
            left -= count
        }
        return flush(descriptor)
    }

    private static func failed(_ step: String, _ path: URL) -> ClueError {
        let why = ClueError.words(of: errno)
        return ClueError(.storage, "cannot \(step) \(path.path): \(why); nothing was changed")
    }

    private static func failedToErase(_ path: URL) -> ClueError { ClueError.system("cannot erase \(path.path)") }
}
