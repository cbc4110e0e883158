import Foundation

/// Safetensors files, read without trusting their header: every number in it is checked before it is used.
public struct Safetensors {
    /// An array of the file: `start` is its first byte from the beginning of the file, `bytes` its length.
    public struct Entry: Equatable, Sendable {
        public let dtype: String
        public let shape: [Int]
        public let start: Int
        public let bytes: Int
    }

    public let entries: [String: Entry]
    public let metadata: [String: String]

    private static let maxHeader = 16 << 20
    private static let maxDimensions = 8
    private static let maxElements = 1 << 40
    /// Bytes of an element.
    static let sizes = [
        "F32": 4, "F64": 8, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
        "BOOL": 1,
    ]

    /// The checked header of a file: every array's bytes are its shape's times its type's, lie in the file, and
    /// the arrays fill the file without a gap or an overlap.
    /// - Throws: `ClueError` naming the file.
    public init(_ file: RegularFile) throws {
        do {
            try self.init(parsing: file)
        } catch let problem as StrictJSON.Problem {
            throw ClueError.reading(file.url, "it is no sound safetensors file, \(problem)")
        }
    }

    /// The same for who must tell a file that is not sound from one that cannot be read.
    /// - Throws: `StrictJSON.Problem` for the former, `ClueError` for the latter.
    init(parsing file: RegularFile) throws { (entries, metadata) = try Self.parse(file) }

    /// The beginning of a file whose arrays follow, in the order of their names.
    public static func header(
        arrays: [String: (dtype: String, shape: [Int], bytes: Int)], metadata: [String: String] = [:]
    ) -> [UInt8] {
        var header: [String: JSON] = [:]
        var offset = 0
        for (name, array) in arrays.sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) {
            header[name] = .object([
                "dtype": .string(array.dtype), "shape": .array(array.shape.map(JSON.int)),
                "data_offsets": .array([.int(offset), .int(offset + array.bytes)]),
            ])
            offset += array.bytes
        }
        if !metadata.isEmpty { header["__metadata__"] = .object(metadata.mapValues(JSON.string)) }
        var text = Array(JSON.object(header).text.utf8)
        text += [UInt8](repeating: UInt8(ascii: " "), count: (8 - text.count % 8) % 8)
        return withUnsafeBytes(of: UInt64(text.count).littleEndian, Array.init) + text
    }

    private static func parse(_ file: RegularFile) throws -> ([String: Entry], [String: String]) {
        func wrong(_ problem: String) -> StrictJSON.Problem { .init(description: problem) }
        guard file.size >= 8 else { throw wrong("it has \(file.size) bytes") }
        let length = try file.bytes(at: 0, count: 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(min(maxHeader, file.size - 8)) else {
            throw wrong("its header claims \(length) bytes of \(file.size - 8)")
        }
        let data = 8 + Int(length)
        let raw = try StrictJSON.parse(file.bytes(at: 8, count: Int(length)), maxBytes: maxHeader)
        guard var members = raw.object else { throw wrong("its header is no JSON object") }
        var metadata: [String: String] = [:]
        if let given = members.removeValue(forKey: "__metadata__") {
            guard let object = given.object, object.values.allSatisfy({ $0.string != nil }) else {
                throw wrong("its metadata are not strings")
            }
            metadata = object.compactMapValues(\.string)
        }
        let entries = try Dictionary(
            uniqueKeysWithValues: members.map { ($0.key, try entry($0.key, $0.value, data: data)) })
        var end = data
        for (name, entry) in entries.sorted(by: { ($0.value.start, $0.value.bytes) < ($1.value.start, $1.value.bytes) }) {
            guard entry.start == end else {
                throw wrong("'\(name.prefix(100))' begins at byte \(entry.start) instead of \(end)")
            }
            end += entry.bytes
        }
        guard end == file.size else { throw wrong("its arrays end at byte \(end), the file at \(file.size)") }
        return (entries, metadata)
    }

    private static func entry(_ name: String, _ raw: JSON, data: Int) throws -> Entry {
        func wrong(_ problem: String) -> StrictJSON.Problem { .init(description: problem) }
        let short = "'\(name.prefix(100))'"
        guard let members = raw.object, Set(members.keys) == ["dtype", "shape", "data_offsets"] else {
            throw wrong("the entry of \(short) is not dtype, shape and data_offsets")
        }
        guard let dtype = members["dtype"]?.string, let size = sizes[dtype] else {
            throw wrong("\(short) is of an unknown type")
        }
        guard let shape = whole(members["shape"]), shape.count <= maxDimensions else {
            throw wrong("the shape of \(short) is no list of up to \(maxDimensions) sizes")
        }
        guard let offsets = whole(members["data_offsets"]), offsets.count == 2, offsets[0] <= offsets[1] else {
            throw wrong("the data_offsets of \(short) are no begin and end")
        }
        var elements = 1
        for side in shape {
            let (product, overflow) = elements.multipliedReportingOverflow(by: max(1, side))
            guard !overflow, product <= maxElements else { throw wrong("the shape of \(short) is too large") }
            elements = product
        }
        if shape.contains(0) { elements = 0 }
        guard offsets[1] - offsets[0] == elements * size else {
            throw wrong("\(short) has \(offsets[1] - offsets[0]) bytes, which do not fit its shape and type")
        }
        return Entry(dtype: dtype, shape: shape, start: data + offsets[0], bytes: offsets[1] - offsets[0])
    }

    /// A list of whole numbers from 0 on; nil for anything else.
    private static func whole(_ value: JSON?) -> [Int]? {
        guard let elements = value?.array else { return nil }
        let numbers = elements.compactMap(\.int).filter { $0 >= 0 }
        return numbers.count == elements.count ? numbers : nil
    }
}
