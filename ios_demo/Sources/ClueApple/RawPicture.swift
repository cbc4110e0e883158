import ClueCore

/// Decoded samples as a decoder hands them over, in whatever order and depth they lie in memory, and the way from there to the upright
/// 8-bit pixels of contract/resize.md. It has no platform in it, so that Linux tests it.
struct RawPicture {
    /// What the transparency of a pixel means for its samples.
    enum Alpha {
        /// There is none.
        case none
        /// There is a sample that means nothing.
        case skipped
        /// Samples are to be multiplied by it.
        case straight
        /// Samples were multiplied by it, which is what they are on black.
        case premultiplied
    }

    var width: Int
    var height: Int
    /// Samples of colour: 1 for grey and palettes, 3 for red, green, blue.
    var colours: Int
    var alpha = Alpha.none
    /// Whether the sample of transparency comes before the colours.
    var alphaFirst = false
    /// 1, 2, 4, 8 or 16.
    var bits = 8
    /// Whether the lower byte of a sample of 16 bits comes first.
    var lowerByteFirst = false
    /// Whether the bytes of each pixel lie in reverse.
    var reversed = false
    var bytesPerRow: Int
    /// Red, green, blue of each entry, for pictures whose samples are numbers of entries.
    var palette: [UInt8]?
    /// The EXIF orientation, 1 to 8; anything else is taken as 1.
    var orientation = 1
    var bytes: [UInt8]

    /// The samples of a pixel, the one of transparency included.
    var samples: Int { colours + (alpha == .none ? 0 : 1) }

    /// Upright 8-bit pixels with 1 channel if `grey`, else 3.
    /// - Throws: ``ClueError`` when the bytes are fewer than the picture needs or of a depth that no rule covers.
    func upright(grey: Bool) throws -> Images {
        guard [1, 2, 4, 8, 16].contains(bits), bits >= 8 || samples == 1 else {
            throw PictureFile.refused("its samples have \(bits) bits: convert it to RGB or grey of 8 bits first")
        }
        let rowBytes = (width * samples * bits + 7) / 8
        guard width > 0, height > 0, bytesPerRow >= rowBytes, bytes.count >= (height - 1) * bytesPerRow + rowBytes else {
            throw PictureFile.refused("its data ends too early")
        }
        let plain = alpha == .straight ? PixelRules.onBlack(try raster()) : try raster()
        return PixelRules.image(PixelRules.upright(plain, orientation: orientation), grey: grey)
    }

    /// Grey, RGB or, where transparency is still to be multiplied, RGBA; 8 bits, as the picture lies.
    private func raster() throws -> PixelRules.Raster {
        let first = alpha != .none && alphaFirst ? 1 : 0
        let channels = alpha == .straight ? 4 : palette == nil ? colours : 3
        var pixels: [UInt8] = []
        pixels.reserveCapacity(width * height * channels)
        for y in 0..<height {
            for x in 0..<width {
                if let palette {
                    let entry = 3 * Int(sample(y, x, 0))
                    guard entry + 2 < palette.count else { throw PictureFile.refused("a pixel is not in its palette") }
                    pixels += palette[entry..<entry + 3]
                } else if colours == 3 {
                    for index in first..<first + 3 { pixels.append(eight(sample(y, x, index))) }
                } else {
                    let grey = eight(sample(y, x, first))
                    // multiplied like a colour, and equal samples stay equal
                    for _ in 0..<(channels == 4 ? 3 : 1) { pixels.append(grey) }
                }
                if channels == 4 { pixels.append(eight(sample(y, x, alphaFirst ? 0 : colours))) }
            }
        }
        return PixelRules.Raster(height: height, width: width, channels: channels, pixels: pixels)
    }

    /// One sample as it is stored.
    private func sample(_ y: Int, _ x: Int, _ index: Int) -> UInt16 {
        let row = y * bytesPerRow
        switch bits {
        case 8:
            return UInt16(bytes[row + x * samples + (reversed ? samples - 1 - index : index)])
        case 16:
            let at = row + 2 * (x * samples + index)
            let (upper, lower) = lowerByteFirst ? (bytes[at + 1], bytes[at]) : (bytes[at], bytes[at + 1])
            return UInt16(upper) << 8 | UInt16(lower)
        default:
            let bit = x * bits
            return UInt16(bytes[row + bit / 8] >> (8 - bits - bit % 8)) & (1 << bits - 1)
        }
    }

    /// A sample with 8 bits: the upper byte of 16, spread from fewer.
    private func eight(_ sample: UInt16) -> UInt8 {
        switch bits {
        case 16: UInt8(sample >> 8)
        case 8: UInt8(sample)
        default: UInt8(Int(sample) * 255 / (1 << bits - 1))
        }
    }
}
