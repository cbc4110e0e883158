import Foundation

extension ClueError {
    /// The error of a system call that failed: what was tried, and `errno` in words.
    static func system(_ tried: String, _ number: Int32 = errno) -> ClueError {
        ClueError(.storage, "\(tried): \(words(of: number))")
    }

    /// `errno` in words.
    static func words(of number: Int32) -> String { String(cString: strerror(number)) }
}
