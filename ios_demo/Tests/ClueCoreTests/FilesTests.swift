import XCTest

@testable import ClueCore

final class FilesTests: XCTestCase {
    private func write(_ bytes: [UInt8], _ folder: TemporaryFolder, _ name: String = "a") throws -> URL {
        let url = folder.url.appendingPathComponent(name)
        try Data(bytes).write(to: url)
        return url
    }

    private func file(_ header: String, data: Int) -> [UInt8] {
        let text = Array(header.utf8)
        return withUnsafeBytes(of: UInt64(text.count).littleEndian, Array.init) + text
            + [UInt8](repeating: 0, count: data)
    }

    func testSha256() throws {
        XCTAssertEqual(
            Sha256.hex("abc".utf8), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        let folder = try TemporaryFolder()
        let bytes = (0..<(1 << 20) + 5).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        XCTAssertEqual(try RegularFile.sha256(write(bytes, folder)), Sha256.hex(bytes))
    }

    func testOnlyRegularFilesAreRead() throws {
        let folder = try TemporaryFolder()
        XCTAssertTrue(sentence(.storage) { _ = try RegularFile(folder.url) }.contains("no regular file"))
        XCTAssertTrue(
            sentence(.storage) { _ = try RegularFile(folder.url.appendingPathComponent("x")) }.contains("x"))
        let pipe = folder.url.appendingPathComponent("pipe").path
        XCTAssertEqual(mkfifo(pipe, 0o600), 0)
        XCTAssertTrue(
            sentence(.storage) { _ = try RegularFile(URL(fileURLWithPath: pipe)) }.contains("no regular file"))
        let large = try write([1, 2, 3], folder)
        XCTAssertTrue(sentence(.storage) { _ = try RegularFile.small(large, most: 2) }.contains("3 bytes"))
    }

    /// A descriptor that is closed twice may be another thread's by then.
    func testWhatIsRefusedIsClosedOnce() throws {
        let folder = try TemporaryFolder()
        errno = 0
        XCTAssertNil(try? RegularFile(folder.url))
        XCTAssertNotEqual(errno, EBADF)
    }

    func testSafetensorsWrittenAndReadAgain() throws {
        let folder = try TemporaryFolder()
        let header = Safetensors.header(
            arrays: ["b": ("F32", [2], 8), "a": ("U8", [3], 3), "c": ("F32", [0, 5], 0)], metadata: ["x": "y\"z"])
        XCTAssertEqual(header.count % 8, 0)
        let floats = withUnsafeBytes(of: (Float(1.5), Float(-2)), Array.init)
        let arrays = try WeightsFile(write(header + [7, 8, 9] + floats, folder))
        XCTAssertEqual(arrays.keys, ["a", "b", "c"])
        XCTAssertEqual(arrays.metadata, ["x": "y\"z"])
        XCTAssertEqual(Array(try arrays.read("b")), [1.5, -2])
        XCTAssertEqual(try arrays.bytes("a", dtype: "U8"), [7, 8, 9])
        XCTAssertTrue(sentence(.bundle) { _ = try arrays.read("a") }.contains("must be F32"))
        XCTAssertTrue(sentence(.bundle) { _ = try arrays.read("q") }.contains("missing"))
    }

    func testUnsoundHeadersAreRefused() throws {
        let folder = try TemporaryFolder()
        func entry(_ shape: String, _ begin: String, _ end: String, _ dtype: String = "F32") -> String {
            #"{"dtype":"\#(dtype)","shape":\#(shape),"data_offsets":[\#(begin),\#(end)]}"#
        }
        let wrong: [(String, [UInt8])] = [
            ("no header", [1, 2, 3]),
            ("header longer than the file", withUnsafeBytes(of: UInt64.max, Array.init)),
            ("no JSON", file("{", data: 0)),
            ("no object", file("[]", data: 0)),
            ("metadata of numbers", file(#"{"__metadata__":{"a":1}}"#, data: 0)),
            ("gap at the start", file("{\"a\":\(entry("[1]", "4", "8"))}", data: 8)),
            ("overlap", file("{\"a\":\(entry("[2]", "0", "8")),\"b\":\(entry("[2]", "4", "12"))}", data: 12)),
            ("bytes left over", file("{\"a\":\(entry("[1]", "0", "4"))}", data: 8)),
            ("beyond the end", file("{\"a\":\(entry("[2]", "0", "8"))}", data: 4)),
            ("wrong size", file("{\"a\":\(entry("[3]", "0", "8"))}", data: 8)),
            ("negative side", file("{\"a\":\(entry("[-1]", "0", "4"))}", data: 4)),
            ("too large", file("{\"a\":\(entry("[9007199254740991,9007199254740991]", "0", "4"))}", data: 4)),
            ("large times zero", file("{\"a\":\(entry("[0,9007199254740991,9007199254740991]", "0", "0"))}", data: 0)),
            ("unknown type", file("{\"a\":\(entry("[1]", "0", "4", "F31"))}", data: 4)),
            ("backwards", file("{\"a\":\(entry("[1]", "4", "0"))}", data: 4)),
            ("twice", file("{\"a\":\(entry("[1]", "0", "4")),\"a\":\(entry("[1]", "0", "4"))}", data: 4)),
            ("nine axes", file("{\"a\":\(entry("[1,1,1,1,1,1,1,1,1]", "0", "4"))}", data: 4)),
        ]
        for (name, content) in wrong {
            let url = try write(content, folder, "x")
            XCTAssertTrue(
                sentence(.storage) { _ = try WeightsFile(url) }.contains("no sound safetensors file"), name)
        }
    }

    func testSignatureOfRfc8032() throws {
        // Test 2 of RFC 8032, section 7.1.
        func bytes(_ hex: String) -> [UInt8] {
            stride(from: 0, to: hex.count, by: 2).compactMap {
                let start = hex.index(hex.startIndex, offsetBy: $0)
                return UInt8(hex[start..<hex.index(start, offsetBy: 2)], radix: 16)
            }
        }
        let key = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        let signature = bytes(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
                + "387b2eaeb4302aeeb00d291612bb0c00")
        XCTAssertTrue(Ed25519.isValid(signature, of: [0x72], key: key))
        XCTAssertFalse(Ed25519.isValid(signature, of: [0x73], key: key))
        XCTAssertFalse(Ed25519.isValid(Array(signature.dropLast()), of: [0x72], key: key))
    }
}
