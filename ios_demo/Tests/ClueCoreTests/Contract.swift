import Foundation
import XCTest

@testable import ClueCore

/// The folder contract/ of the repository, which holds what all runtimes share.
enum Contract {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("contract")

    static func json(_ name: String) throws -> JSON {
        try StrictJSON.parse(RegularFile.small(folder.appendingPathComponent(name), most: 1 << 24), maxBytes: 1 << 24)
    }
}

/// A folder of its own for a test, removed afterwards.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("clue-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    /// A copy of the toy bundle of the scenarios.
    func toyBundle() throws -> URL {
        let copy = url.appendingPathComponent("toy.clue")
        try FileManager.default.copyItem(
            at: Contract.folder.appendingPathComponent("scenarios/bundles/toy"), to: copy)
        return copy
    }
}

/// The sentence of the error that the body must throw.
func sentence(
    _ kind: ClueError.Kind, file: StaticString = #filePath, line: UInt = #line, _ body: () throws -> Void
) -> String {
    do {
        try body()
        XCTFail("nothing was thrown", file: file, line: line)
    } catch let error as ClueError {
        XCTAssertEqual(error.kind, kind, error.message, file: file, line: line)
        return error.message
    } catch {
        XCTFail("another error: \(error)", file: file, line: line)
    }
    return ""
}

extension JSON {
    /// Members that a test relies on.
    func list(_ key: String) throws -> [JSON] { try XCTUnwrap(self[key]?.array, key) }
    func whole(_ key: String) throws -> Int { try XCTUnwrap(self[key]?.int, key) }
    func number(_ key: String) throws -> Double { try XCTUnwrap(self[key]?.number, key) }
    func text(_ key: String) throws -> String { try XCTUnwrap(self[key]?.string, key) }
    func wholes(_ key: String) throws -> [Int] { try list(key).map { try XCTUnwrap($0.int) } }
    func hex64(_ key: String) throws -> UInt64 { try XCTUnwrap(UInt64(text(key), radix: 16)) }
    func hex32(_ key: String) throws -> [UInt32] {
        try list(key).map { try XCTUnwrap(UInt32(XCTUnwrap($0.string), radix: 16)) }
    }
}
