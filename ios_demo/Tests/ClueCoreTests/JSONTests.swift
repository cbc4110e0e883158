import XCTest

@testable import ClueCore

final class JSONTests: XCTestCase {
    private func parse(_ text: String) throws -> JSON { try StrictJSON.parse(Array(text.utf8), maxBytes: 1000) }

    func testValues() throws {
        XCTAssertEqual(
            try parse(#" {"a": [1, -2.5, 1e2, true, false, null], "b": "x\n\u00e9\ud83d\ude00"} "#),
            .object([
                "a": .array([.int(1), .double(-2.5), .double(100), .bool(true), .bool(false), .null]),
                "b": .string("x\né😀"),
            ]))
        XCTAssertEqual(try parse("9007199254740991"), .int((1 << 53) - 1))
        XCTAssertEqual(try parse("-0"), .int(0))
    }

    func testWhatIsRefused() {
        let deep = String(repeating: "[", count: 65) + String(repeating: "]", count: 65)
        let wrong = [
            "", " ", "{", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "01", "1.", ".5", "1e", "+1", "nul", "NaN", "Infinity",
            "\"a", "\"\t\"", "\"\\x\"", "\"\\u12g4\"", "1 2", "'a'", "{\"a\":1,\"a\":2}", "9007199254740992",
            "99999999999999999999999", "-9223372036854775808", "1e400", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", deep, "[1}",
            "\u{FEFF}1",
        ]
        for text in wrong {
            XCTAssertThrowsError(try parse(text), text) { XCTAssertTrue($0 is StrictJSON.Problem, text) }
        }
        XCTAssertNoThrow(try parse(String(repeating: "[", count: 64) + String(repeating: "]", count: 64)))
        XCTAssertThrowsError(try StrictJSON.parse([0x22, 0xFF, 0x22], maxBytes: 10))
        XCTAssertThrowsError(try StrictJSON.parse([0x22, 0xED, 0xA0, 0x80, 0x22], maxBytes: 10))
        XCTAssertThrowsError(try StrictJSON.parse(Array("[1, 2]".utf8), maxBytes: 5))
    }

    func testOrderOfMembers() throws {
        let read = try StrictJSON.read(Array(#"{"x": {"b": 1, "a": {"c": 2}}, "y": {"d": 3}}"#.utf8), maxBytes: 100)
        XCTAssertEqual(read.order, ["x": ["b", "a"], "y": ["d"]])
    }

    func testWritingAndReadingAgain() throws {
        let value: JSON = .object([
            "text": .string("\"\\\u{1}\u{1F600}"), "numbers": .array([.int(-7), .double(0.1), .double(5e-300), .double(1e300)]),
            "none": .null, "yes": .bool(true),
        ])
        XCTAssertEqual(try parse(value.text), value)
        XCTAssertEqual(JSON.double(1).text, "1.0")
        XCTAssertEqual(JSON.double(.nan).text, "null")
    }
}
