import Foundation
import XCTest

@testable import ClueCore

/// clue-swift as a process of its own.
struct CommandLineTool {
    struct Ended {
        let killed: Bool
        let code: Int32
        let output: String
        let errors: String
    }

    /// The disk that fails or the power switch of tests/pi_runtime/crash_shim.c.
    struct Disk {
        enum Mode: Int { case count, fail, failFrom, killBefore, killAfter, killWithin }

        let shim: URL
        let folder: URL
        var mode = Mode.count
        var at = 0
        var calls = "cwtsrum"
        var trace = ""
    }

    /// Beside the test program.
    private static var tool: URL {
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appendingPathComponent("clue-swift")
    }

    /// Run it to its end. With `killAt` it is killed as soon as it has told that so many operations are done.
    static func run(_ arguments: [String], disk: Disk? = nil, killAt: Int? = nil) throws -> Ended {
        let process = Process()
        process.executableURL = tool
        process.arguments = arguments
        var environment = ProcessInfo.processInfo.environment
        if let disk {
            environment["LD_PRELOAD"] = disk.shim.path
            environment["CLUE_DISK"] = disk.folder.path
            environment["CLUE_DISK_MODE"] = String(disk.mode.rawValue)
            environment["CLUE_DISK_AT"] = String(disk.at)
            environment["CLUE_DISK_CALLS"] = disk.calls
            environment["CLUE_DISK_TRACE"] = disk.trace
        }
        process.environment = environment
        let (output, errors) = (Pipe(), Pipe())
        (process.standardOutput, process.standardError) = (output, errors)
        try process.run()
        var text = ""
        while case let part = output.fileHandleForReading.availableData, !part.isEmpty {
            text += String(decoding: part, as: UTF8.self)
            if let killAt, operations(text) >= killAt { kill(process.processIdentifier, SIGKILL) }
        }
        let problems = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        let killed = process.terminationReason == .uncaughtSignal
        if killed { XCTAssertEqual(process.terminationStatus, SIGKILL, problems) }
        return Ended(killed: killed, code: process.terminationStatus, output: text, errors: problems)
    }

    private static func operations(_ text: String) -> Int {
        text.split(separator: "\n").compactMap { line in
            line.hasPrefix("operation ") ? Int(line.split(separator: " ")[1]) : nil
        }.max() ?? -1
    }
}
