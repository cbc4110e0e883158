import Foundation

/// The arrays of a safetensors file, each read from the disk when asked for and not kept: a request needs the
/// served weights at its start and again on a reset; a copy held all along would be a third one of each.
public struct WeightsFile {
    public let url: URL
    private let file: RegularFile
    private let header: Safetensors

    /// - Throws: `ClueError` when the file cannot be read or its header is not sound.
    public init(_ url: URL) throws {
        let file = try RegularFile(url)
        self.init(file, header: try Safetensors(file))
    }

    /// The arrays of a file whose header was read.
    init(_ file: RegularFile, header: Safetensors) {
        (url, self.file, self.header) = (file.url, file, header)
    }

    /// A weights file whose SHA-256 and every shape that the manifest expects were checked.
    /// - Throws: `ClueError` naming the file when it is missing, was changed or does not fit the bundle.
    public static func open(_ url: URL, sha256: String, bundle: ClueBundle) throws -> WeightsFile {
        guard try RegularFile.sha256(url) == sha256 else {
            throw ClueError(.storage, "weights \(url.path) were changed: their SHA-256 is not the recorded one")
        }
        let arrays = try WeightsFile(url)
        for value in bundle.values {
            guard let key = value.weightsKey, arrays.shape(key) != value.shape else { continue }
            let found = arrays.shape(key).map(String.init(describing:)) ?? "missing"
            throw ClueError(.bundle, "weights \(url.path): \(key) is \(found), the bundle needs \(value.shape)")
        }
        return arrays
    }

    /// The names of the arrays, sorted.
    public var keys: [String] { header.entries.keys.sorted() }

    public var metadata: [String: String] { header.metadata }

    /// The shape of an array without reading it; nil when there is none of that name.
    public func shape(_ key: String) -> [Int]? { header.entries[key]?.shape }

    /// A float32 array. Throws `ClueError` when there is none of that name and type.
    public func read(_ key: String) throws -> FloatArray {
        let entry = try entry(key, dtype: "F32")
        let array = FloatArray(shape: entry.shape)
        try file.read(into: array.bytes, at: entry.start)
        return array
    }

    /// Fill an array with a float32 array of as many elements. Throws as `read` does.
    public func read(_ key: String, into array: FloatArray) throws {
        let entry = try entry(key, dtype: "F32")
        guard entry.bytes == array.bytes.count else {
            throw ClueError(.bundle, "\(url.path): \(key) is \(entry.shape), it must be \(array.shape)")
        }
        try file.read(into: array.bytes, at: entry.start)
    }

    /// The bytes of an array of another type. Throws `ClueError` when there is none of that name and type.
    public func bytes(_ key: String, dtype: String) throws -> [UInt8] {
        let entry = try entry(key, dtype: dtype)
        return try file.bytes(at: entry.start, count: entry.bytes)
    }

    private func entry(_ key: String, dtype: String) throws -> Safetensors.Entry {
        guard let entry = header.entries[key], entry.dtype == dtype else {
            let found = header.entries[key]?.dtype ?? "missing"
            throw ClueError(.bundle, "\(url.path): \(key) is \(found), it must be \(dtype)")
        }
        return entry
    }
}
