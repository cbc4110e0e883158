import Foundation

/// A float32 array in memory of its own, row-major: engines read and write it in place, so that the weights
/// are not copied between two steps.
///
/// It is not synchronised: one thread at a time uses it, which its owner sees to.
public final class FloatArray {
    /// The length of each axis; empty for a single number.
    public let shape: [Int]
    /// The number of elements.
    public let count: Int
    /// The first element; 64-byte aligned, valid as long as the array.
    public let pointer: UnsafeMutablePointer<Float>

    private let memory: UnsafeMutableRawPointer

    /// An array of zeros.
    public init(shape: [Int]) {
        self.shape = shape
        count = shape.reduce(1, *)
        let room = Swift.max(count, 1)
        memory = .allocate(byteCount: room * MemoryLayout<Float>.stride, alignment: 64)
        pointer = memory.bindMemory(to: Float.self, capacity: room)
        pointer.initialize(repeating: 0, count: room)
    }

    deinit { memory.deallocate() }

    /// The elements, for reading and writing; valid as long as the array, so not of one that nobody holds.
    public var elements: UnsafeMutableBufferPointer<Float> { .init(start: pointer, count: count) }
    /// The bytes of the elements, as `elements`; little-endian on every platform that Swift supports.
    public var bytes: UnsafeMutableRawBufferPointer { .init(elements) }

    /// Give every element this value.
    public func fill(_ value: Float) { pointer.update(repeating: value, count: count) }

    /// Copy the content of another array of as many elements.
    public func copy(from other: FloatArray) {
        precondition(other.count == count, "arrays of \(other.count) and \(count) elements")
        pointer.update(from: other.pointer, count: count)
    }

    /// Whether every element is finite.
    public var isFinite: Bool {
        for i in 0..<count where !pointer[i].isFinite { return false }
        return true
    }
}

extension FloatArray: RandomAccessCollection {
    public var startIndex: Int { 0 }
    public var endIndex: Int { count }
    public subscript(index: Int) -> Float { elements[index] }
}
