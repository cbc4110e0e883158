/// Counter-based random numbers with the same bits in every language (contract/rng.md). A number is a function
/// of (seed, stream, epoch, position, block) alone, so that a resumed request needs no generator state.
///
/// Philox 4x32-10 is from Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
public struct Philox: Sendable {
    /// Four words of one block.
    public struct Block: Equatable, Sendable {
        public var words: (UInt32, UInt32, UInt32, UInt32)

        public static func == (one: Block, other: Block) -> Bool { one.words == other.words }

        subscript(index: Int) -> UInt32 {
            switch index {
            case 0: words.0
            case 1: words.1
            case 2: words.2
            default: words.3
            }
        }
    }

    /// Streams that are not a method's own.
    public enum Stream {
        public static let order: UInt32 = 1
        public static let augmentation: UInt32 = 2
        public static let probes: UInt32 = 3
        public static let heldOut: UInt32 = 4
        public static let golden: UInt32 = 8
    }

    public let seed: UInt64
    public let stream: UInt32
    public let epoch: UInt32

    public init(seed: UInt64, stream: UInt32, epoch: Int) {
        (self.seed, self.stream, self.epoch) = (seed, stream, UInt32(epoch))
    }

    /// The block of a sample.
    @inline(__always)
    public func block(_ block: UInt32, position: UInt32) -> Block {
        Self.block(
            counter: (block, position, epoch, stream), key: (UInt32(truncatingIfNeeded: seed), UInt32(seed >> 32)))
    }

    /// The words of a sample from block `offset` on, `count` of them.
    public func words(position: Int, count: Int, offset: Int = 0) -> [UInt32] {
        precondition(offset + (count + 3) / 4 <= 1 << 32, "a sample has 2^32 blocks")
        return [UInt32](unsafeUninitializedCapacity: (count + 3) / 4 * 4) { out, filled in
            for number in 0..<(count + 3) / 4 {
                let block = block(UInt32(offset + number), position: UInt32(position))
                for index in 0..<4 { out[4 * number + index] = block[index] }
            }
            filled = count
        }
    }

    /// Ten rounds of Philox 4x32.
    @inline(__always)
    public static func block(counter: (UInt32, UInt32, UInt32, UInt32), key: (UInt32, UInt32)) -> Block {
        var (c0, c1, c2, c3) = counter
        var (k0, k1) = key
        for _ in 0..<10 {
            let first = UInt64(0xD251_1F53) &* UInt64(c0)
            let second = UInt64(0xCD9E_8D57) &* UInt64(c2)
            (c0, c1, c2, c3) = (
                UInt32(truncatingIfNeeded: second >> 32) ^ c1 ^ k0, UInt32(truncatingIfNeeded: second),
                UInt32(truncatingIfNeeded: first >> 32) ^ c3 ^ k1, UInt32(truncatingIfNeeded: first)
            )
            k0 = k0 &+ 0x9E37_79B9
            k1 = k1 &+ 0xBB67_AE85
        }
        return Block(words: (c0, c1, c2, c3))
    }
}
