import Foundation
import XCTest

@testable import ClueCore

/// What a store refuses, and what it does when something beside it goes wrong.
final class StoreTests: XCTestCase {
    private func open(_ folder: URL) throws -> ForgetStore {
        try ForgetStore(
            folder: folder.appendingPathComponent("store"), bundle: try Places.bundle(in: folder), signers: FileSigners())
    }

    private func fails(
        _ words: String, line: UInt = #line, _ body: () throws -> Void
    ) {
        XCTAssertThrowsError(try body(), line: line) { error in
            XCTAssertTrue("\(error)".contains(words), "\(error)", line: line)
        }
    }

    private func mode(_ path: URL) -> mode_t {
        var status = stat()
        return stat(path.path, &status) == 0 ? status.st_mode & 0o777 : 0
    }

    func testAStoreIsItsOwners() throws {
        let folder = try Places.folder(self)
        let store = try open(folder)
        _ = try store.add(try Places.images("cat", 0..<3), label: 0)
        XCTAssertEqual(mode(store.folder), 0o700)
        for name in ["store.db", "store.db-wal", "keys/000001.key", "generations/000001.safetensors", "lock"] {
            XCTAssertEqual(mode(store.folder.appendingPathComponent(name)), 0o600, name)
        }
    }

    func testWhatOthersMayReadIsClosedAndWhatTheyMayWriteIsRefused() throws {
        let folder = try Places.folder(self)
        let store = try open(folder)
        let database = store.folder.appendingPathComponent("store.db")
        store.close()
        chmod(database.path, 0o644)
        try open(folder).close()
        XCTAssertEqual(mode(database), 0o600)
        chmod(database.path, 0o666)
        fails("others may write") { try open(folder).close() }
        chmod(database.path, 0o600)
        symlink("/etc/passwd", store.folder.appendingPathComponent("keys/x").path)
        fails("is a link") { try open(folder).close() }
    }

    func testAFolderWithOtherFilesAndOneInTheBundleAreRefused() throws {
        let folder = try Places.folder(self)
        let bundle = try Places.bundle(in: folder)
        try Data().write(to: folder.appendingPathComponent("letter"))
        fails("holds other files") { _ = try ForgetStore(folder: folder, bundle: bundle, signers: FileSigners()) }
        let inside = bundle.root.appendingPathComponent("store")
        fails("lies in the bundle") { _ = try ForgetStore(folder: inside, bundle: bundle, signers: FileSigners()) }
    }

    func testADatabaseWithATriggerOrOfANewerVersionIsRefused() throws {
        let folder = try Places.folder(self)
        let store = try open(folder)
        try store.database.execute("PRAGMA user_version = 3")
        store.close()
        fails("newer runtime") { _ = try open(folder) }
        let database = try Database(folder: store.folder)
        try database.execute("PRAGMA user_version = 2")
        try database.execute("CREATE TRIGGER t AFTER INSERT ON samples BEGIN SELECT 1; END")
        database.close()
        fails("trigger t") { _ = try open(folder) }
    }

    func testADatabaseThatIsNoneIsAnErrorAndNoCrash() throws {
        let folder = try Places.folder(self)
        let store = try open(folder)
        store.close()
        let database = store.folder.appendingPathComponent("store.db")
        try Data(repeating: 7, count: 5000).write(to: database)
        fails("failed") { _ = try open(folder) }
    }

    func testSamplesAreEncryptedAndChangesAreSeen() throws {
        let folder = try Places.folder(self)
        let store = try open(folder)
        let images = try Places.images("cat", 0..<3)
        XCTAssertEqual(try store.add(images, label: 0), [1, 2, 3])
        XCTAssertEqual(try store.add(images, label: 0), [])
        XCTAssertEqual(try store.add(images, label: 1), [4, 5, 6])
        let request = try store.requestRows.create(
            .init(kind: "class", label: 0, className: "cat", seed: 1, scalars: [:], samples: [3, 1, 2], options: .init()))
        XCTAssertEqual(try store.labelled(of: request).images, images.at([2, 0, 1]))
        // The contract's layout: nonce, data, tag.
        let sizes = try store.database.rows("SELECT length(wrapped), length(content) FROM samples JOIN pixels ON sample_id = id")
        XCTAssertEqual(sizes.map(\.columns).first, [.integer(60), .integer(44)])
        try store.database.execute("UPDATE pixels SET content = (SELECT content FROM pixels WHERE sample_id = 2) WHERE sample_id = 1")
        fails("sample 1 of") { _ = try store.labelled(of: request) }
    }

    func testAKeyThatIsGoneIsAnError() throws {
        let folder = try Places.folder(self)
        let store = try open(folder)
        _ = try store.add(try Places.images("cat", 0..<3), label: 0)
        try Files.erase(store.keys.path(1))
        fails("cannot be read") { _ = try store.add(try Places.images("cat", 3..<4), label: 0) }
        XCTAssertEqual(try store.sampleCounts(), [0: 3])
    }

    func testImagesOfAnotherSizeAreRefused() throws {
        let store = try open(try Places.folder(self))
        let images = Images(count: 1, height: 2, width: 2, channels: 1, pixels: [0, 0, 0, 0])
        fails("1 x 4 x 4") { _ = try store.add(images, label: 0) }
    }

    func testOneAtATimeHoldsTheLock() throws {
        let folder = try Places.folder(self)
        let (one, other) = (try open(folder), try open(folder))
        try one.exclusive {
            try one.exclusive {}
            XCTAssertThrowsError(try other.exclusive(wait: 0.05) {}) {
                XCTAssertEqual(($0 as? ClueError)?.kind, .busy)
            }
            XCTAssertEqual(try other.requests(), [], "reading needs no lock")
        }
        try other.exclusive {}
    }

    func testATransitionThatThePictureLacksChangesNothing() throws {
        let store = try open(try Places.folder(self))
        _ = try store.add(try Places.images("cat", 0..<3), label: 0)
        let request = try store.requestRows.create(
            .init(kind: "class", label: 0, className: "cat", seed: 1, scalars: [:], samples: [1], options: .init()))
        for status in [RequestStatus.verifying, .done, .failed, .paused] {
            XCTAssertThrowsError(try store.requestRows.move(request, to: status)) {
                XCTAssertEqual(($0 as? ClueError)?.kind, .transition)
            }
        }
        XCTAssertEqual(try store.request(request).status, .queued)
        fails("no request 9") { _ = try store.request(9) }
        fails("part of request 1") {
            _ = try store.requestRows.create(
                .init(kind: "samples", seed: 1, scalars: [:], samples: [1], options: .init()))
        }
    }

    func testWhatNoRowNamesIsRemovedByWhoGetsTheLock() throws {
        let store = try open(try Places.folder(self))
        let left = ["generations/000009.safetensors", "keys/000009.key", "checkpoints/000009.safetensors", "x.part"]
        for name in left { try Data([1]).write(to: store.folder.appendingPathComponent(name)) }
        try store.exclusive {}
        for name in left { XCTAssertFalse(Files.exists(store.folder.appendingPathComponent(name)), name) }
        XCTAssertTrue(Files.exists(try store.serving().file))
    }

    func testAFileIsWholeOrNotThere() throws {
        let place = try Places.folder(self).appendingPathComponent("file")
        struct Stop: Error {}
        XCTAssertThrowsError(
            try Files.write(place) { sink in
                try [UInt8](repeating: 1, count: 10).withUnsafeBytes(sink)
                throw Stop()
            })
        XCTAssertEqual(try Files.names(in: place.deletingLastPathComponent()), [])
        XCTAssertEqual(try Files.write(place, bytes: [1, 2]), Sha256.hex([1, 2]))
        XCTAssertThrowsError(try Files.write(place, bytes: [3]))
        try Files.write(place, replace: true, bytes: [3])
        XCTAssertEqual(try RegularFile.small(place, most: 9), [3])
        try Files.append(place, lines: "a\nb")
        XCTAssertEqual(try RegularFile.small(place, most: 9), [3, 10] + Array("a\nb\n".utf8))
        XCTAssertThrowsError(try Files.write(place.appendingPathComponent("below"), bytes: []))
    }

    // MARK: version 1

    /// A store as version 1 left it: pixels in the clear, no keys, weights files named after requests.
    func testAStoreOfVersion1IsTakenOver() throws {
        let folder = try Places.folder(self)
        let bundle = try Places.bundle(in: folder)
        let store = folder.appendingPathComponent("store")
        try Privacy.makeFolder(store)
        try Privacy.makeFolder(store.appendingPathComponent("generations"))
        let weights = try RegularFile.small(try bundle.file(bundle.weights.file), most: 1 << 20)
        for name in ["000000", "000002"] {
            try Files.write(store.appendingPathComponent("generations/\(name).safetensors"), bytes: weights)
        }
        let old = try Database(folder: store)
        let schema = Places.contract.deletingLastPathComponent().appendingPathComponent(
            "tests/pi_runtime/data/schema_v1.sql")
        let text = String(decoding: try RegularFile.small(schema, most: 1 << 20), as: UTF8.self)
        let code = text.split(separator: "\n").map { $0.split(separator: "--", omittingEmptySubsequences: false)[0] }
        for statement in code.joined(separator: "\n").split(separator: ";") where statement.contains("CREATE") {
            try old.execute(String(statement))
        }
        try old.execute("PRAGMA user_version = 1")
        let classes = JSON.array(bundle.classes.map(JSON.string)).text
        for (key, value) in [("weights_sha256", bundle.weights.sha256), ("classes", classes), ("input", "[1, 4, 4]")] {
            try old.execute("INSERT INTO bundle VALUES (?, ?)", .text(key), .text(value))
        }
        let images = try Places.images("cat", 0..<3)
        for index in 0..<3 {
            let pixels = images.at([index]).pixels
            try old.execute(
                "INSERT INTO samples VALUES (?, ?, 0, 4, 4, 1, ?, 'then')", .integer(index + 1),
                .text(Sha256.hex(pixels)), .blob(pixels))
        }
        for (id, status) in [(1, "running"), (2, "done")] {
            try old.execute(
                "INSERT INTO requests VALUES (?, 0, 'cat', ?, 5, '{\"lr\": 0.5}', NULL, '{}', 'then', NULL)", .integer(id),
                .text(status))
            for position in 0..<3 {
                try old.execute(
                    "INSERT INTO request_samples VALUES (?, ?, ?)", .integer(id), .integer(position), .integer(3 - position))
            }
        }
        for (id, request, name) in [(1, SQLValue.null, "000000"), (2, .integer(2), "000002")] {
            try old.execute(
                "INSERT INTO generations VALUES (?, ?, ?, ?, 'then', ?)", .integer(id), request,
                .text("\(name).safetensors"), .text(Sha256.hex(weights)), .integer(id == 2 ? 1 : 0))
        }
        old.close()

        let opened = try ForgetStore(folder: store, bundle: bundle, signers: FileSigners())
        XCTAssertEqual(try opened.requests().map(\.status), [.failed, .done])
        XCTAssertEqual(try opened.requests().map(\.reason), ["interrupted", nil])
        XCTAssertEqual(try opened.requests().map(\.baseGeneration), [nil, 1])
        XCTAssertEqual(try opened.labelled(of: 2).images, images.at([2, 1, 0]))
        XCTAssertEqual(try opened.forgotten(), [0])
        XCTAssertEqual(try opened.generationRows.nextID(), 3)
        opened.close()
        for name in try Files.names(in: store) where name.hasPrefix("store.db") {
            let content = Data(try RegularFile.small(store.appendingPathComponent(name), most: 1 << 24))
            XCTAssertNil(content.range(of: Data(images.at([0]).pixels)), name)
        }
    }
}
