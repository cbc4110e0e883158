/// The logarithm, cosine and sine of contract/rng.md, sections 5 and 6: every operation is one rounded double
/// operation in a fixed order, so that all languages get the same bits. No library function, no fused product.
enum BoxMuller {
    private static let ln2 = 0x1.62e42fefa39efp-1
    private static let sqrtHalfBits: UInt64 = 0x3FE6_A09E_0000_0000
    private static let mantissa: UInt64 = 0x000F_FFFF_FFFF_FFFF

    /// -ln(k / 2^32) for k from 1 to 2^32.
    @inline(__always)
    static func negLog(_ k: UInt64) -> Double {
        let d = Double(k).bitPattern - sqrtHalfBits
        let m = Double(bitPattern: (d & mantissa) + sqrtHalfBits)
        let s = (m - 1.0) / (m + 1.0)
        let z = s * s
        var t = 0x1.2b585ce66ecd3p-3
        t = t * z + 0x1.39fe5eebedfa5p-3
        t = t * z + 0x1.7462b4b689086p-3
        t = t * z + 0x1.c71c62e558272p-3
        t = t * z + 0x1.2492492df1681p-2
        t = t * z + 0x1.99999999952e1p-2
        t = t * z + 0x1.5555555555558p-1
        t = t * z + 0x1p+1
        let p = t * s
        return Double(32 - Int(d >> 52)) * ln2 - p
    }

    /// Cosine and sine of 2 pi k / 2^32 for k from 1 to 2^32.
    @inline(__always)
    static func cosSin(_ k: UInt64) -> (cos: Double, sin: Double) {
        let q = (k + (1 << 29)) >> 30
        let d = Int64(k) - Int64(q << 30)
        let y = Double(d) * 0x1p-30
        let z = y * y
        var c = -0x1.b2f3eb054afcdp-28
        c = c * z + 0x1.f9ce245cada0bp-22
        c = c * z + -0x1.a6d1eef479be1p-16
        c = c * z + 0x1.e1f5068688d5bp-11
        c = c * z + -0x1.55d3c7e3cb241p-6
        c = c * z + 0x1.03c1f081b5ac0p-2
        c = c * z + -0x1.3bd3cc9be45dep+0
        c = c * z + 0x1p+0
        var s = 0x1.e3f38399551bfp-25
        s = s * z + -0x1.e30071afc3e59p-19
        s = s * z + 0x1.50782fda12d96p-13
        s = s * z + -0x1.32d2cce2e5b19p-8
        s = s * z + 0x1.466bc677587f8p-4
        s = s * z + -0x1.4abbce625be41p-1
        s = s * z + 0x1.921fb54442d18p+0
        s = s * y
        switch q & 3 {
        case 0: return (c, s)
        case 1: return (-s, c)
        case 2: return (-c, -s)
        default: return (s, -c)
        }
    }

    /// Two normal numbers of two words.
    @inline(__always)
    static func pair(_ w: UInt32, _ v: UInt32) -> (Float, Float) {
        let r = (2.0 * negLog(UInt64(w) + 1)).squareRoot()
        let (c, s) = cosSin(UInt64(v) + 1)
        return (Float(r * c), Float(r * s))
    }
}
