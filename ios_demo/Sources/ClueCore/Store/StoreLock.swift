import Foundation

/// The lock of a store: a `flock` on the file `lock`, which the system frees when the process dies.
///
/// Two objects exclude each other also within one process, since each opens the file anew.
final class StoreLock {
    private let folder: URL
    private var depth = 0

    init(folder: URL) {
        self.folder = folder
    }

    /// Holds the lock while the body runs; `gained` is called once it is held. Who holds it already may take it again.
    ///
    /// Throws ``ClueError`` of the kind `busy` when another holds it for `wait` seconds.
    func hold<Result>(wait: Double, gained: () throws -> Void = {}, _ body: () throws -> Result) throws -> Result {
        if depth > 0 {
            depth += 1
            defer { depth -= 1 }
            return try body()
        }
        let descriptor = open(folder.appendingPathComponent("lock").path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw ClueError.system("cannot lock the store \(folder.path)") }
        defer { close(descriptor) }
        try take(descriptor, wait: wait)
        depth = 1
        defer { depth = 0 }
        try gained()
        return try body()
    }

    private func take(_ descriptor: Int32, wait: Double) throws {
        let until = Clock.seconds() + wait
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            guard Clock.seconds() < until else {
                throw ClueError(
                    .busy, "another request is running on the store \(folder.path): wait until it ends")
            }
            usleep(20_000)
        }
    }
}
