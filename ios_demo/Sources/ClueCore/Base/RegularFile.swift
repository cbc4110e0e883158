import Foundation

/// A regular file opened for reading. It never waits for whoever might write into a pipe, and the check is of
/// what was opened, not of a name.
public final class RegularFile {
    public let url: URL
    /// Bytes, when it was opened.
    public let size: Int
    private let descriptor: Int32

    /// - Throws: `ClueError` where there is no such file, it may not be read, or it is a pipe, a device, a folder.
    public init(_ url: URL) throws {
        let opened = open(url.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard opened >= 0 else { throw ClueError.reading(url, String(cString: strerror(errno))) }
        var status = stat()
        // before the object is whole: after that a throw runs deinit, which would close what another thread has opened meanwhile
        guard fstat(opened, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(opened)
            throw ClueError.reading(url, "it is no regular file")
        }
        (self.url, descriptor, size) = (url, opened, Int(status.st_size))
    }

    deinit { close(descriptor) }

    /// Fill the buffer from byte `offset` on. Throws `ClueError` when the file ends before, or cannot be read.
    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws {
        var done = 0
        while done < buffer.count {
            let count = pread(
                descriptor, buffer.baseAddress! + done, min(buffer.count - done, 1 << 30), off_t(offset + done))
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw ClueError.reading(url, String(cString: strerror(errno))) }
            guard count > 0 else { throw ClueError.reading(url, "it has become shorter") }
            done += count
        }
    }

    /// Some bytes. Throws as `read(into:at:)` does.
    public func bytes(at offset: Int, count: Int) throws -> [UInt8] {
        var found = [UInt8](repeating: 0, count: count)
        try found.withUnsafeMutableBytes { try read(into: $0, at: offset) }
        return found
    }

    /// The content of a file of up to `most` bytes. Throws `ClueError` when it is longer or cannot be read.
    public static func small(_ url: URL, most: Int) throws -> [UInt8] {
        let file = try RegularFile(url)
        guard file.size <= most else {
            throw ClueError.reading(url, "it has \(file.size) bytes, up to \(most) are allowed")
        }
        return try file.bytes(at: 0, count: file.size)
    }

    /// The SHA-256 of a file's content in hex. Throws `ClueError` when it cannot be read.
    public static func sha256(_ url: URL) throws -> String {
        let file = try RegularFile(url)
        var hash = Sha256()
        var piece = [UInt8](repeating: 0, count: min(max(file.size, 1), 1 << 20))
        var offset = 0
        while offset < file.size {
            let count = min(piece.count, file.size - offset)
            try piece.withUnsafeMutableBytes { buffer in
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
                try file.read(into: part, at: offset)
                hash.update(UnsafeRawBufferPointer(part))
            }
            offset += count
        }
        return hash.digest.hex
    }
}

extension ClueError {
    static func reading(_ url: URL, _ problem: String) -> ClueError {
        ClueError(.storage, "cannot read \(url.path): \(problem)")
    }
}
