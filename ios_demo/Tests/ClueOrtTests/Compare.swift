import XCTest

@testable import ClueCore

/// Order, pixels, labels and noise of every program that ran: the same bits.
func compare(_ found: [Recorder.Run], with reference: JSON?) throws {
    let expected = try XCTUnwrap(reference?.array).map {
        Recorder.Run(
            program: $0["program"]?.string ?? "", inputs: ($0["inputs"]?.object ?? [:]).compactMapValues(\.string))
    }
    XCTAssertEqual(found.count, expected.count)
    for (number, (one, other)) in zip(found, expected).enumerated() { XCTAssertEqual(one, other, "run \(number)") }
}

/// The same members and counts; what comes from logits and losses within a relative 1e-4.
func compare(_ found: JSON, with wanted: JSON?, _ place: String) throws {
    switch (found, try XCTUnwrap(wanted, place)) {
    case (.object(let one), .object(let other)):
        XCTAssertEqual(Set(one.keys), Set(other.keys), place)
        for (key, value) in one where other[key] != nil { try compare(value, with: other[key], "\(place).\(key)") }
    case (.array(let one), .array(let other)):
        XCTAssertEqual(one.count, other.count, place)
        for (index, pair) in zip(one, other).enumerated() { try compare(pair.0, with: pair.1, "\(place).\(index)") }
    case (let one, let other):
        guard let value = one.number, let expected = other.number else { return XCTAssertEqual(one, other, place) }
        XCTAssertEqual(value, expected, accuracy: 1e-4 * max(abs(expected), 1e-6), place)
    }
}

/// Arrays from programs, within 1e-5 of their scale.
func compare(_ found: some Sequence<Float>, with expected: some Sequence<Float>, _ what: String) {
    let scale = expected.map(abs).max() ?? 0
    let largest = zip(found, expected).map { abs($0 - $1) }.max() ?? .infinity
    print("\(what): differs by \(largest) at a scale of \(scale)")
    XCTAssertLessThanOrEqual(largest, 1e-5 * scale, what)
}
