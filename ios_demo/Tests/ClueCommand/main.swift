import ClueCore
import ClueOrt
import Foundation

// The package from a command line, for its tests on Linux: processes that can be killed, and figures to hold
// against those of clue-pi.
do {
    Disk.armIfAsked()
    exit(try await Command(Array(CommandLine.arguments.dropFirst())).run())
} catch {
    complain("\(error)")
    exit(2)
}
