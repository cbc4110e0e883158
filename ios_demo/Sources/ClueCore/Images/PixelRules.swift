/// What happens to decoded pixels before crop and resize (contract/resize.md, "Decode"): for decoders of every platform.
public enum PixelRules {
    /// Pixels of one image with any number of channels, row by row, channels together.
    public struct Raster: Equatable, Sendable {
        public var height: Int
        public var width: Int
        public var channels: Int
        public var pixels: [UInt8]

        public init(height: Int, width: Int, channels: Int, pixels: [UInt8]) {
            precondition(pixels.count == height * width * channels, "pixels do not fill the image")
            (self.height, self.width, self.channels, self.pixels) = (height, width, channels, pixels)
        }
    }

    /// The pixels turned upright, by the EXIF orientation 1 to 8; another value is taken as 1.
    public static func upright(_ image: Raster, orientation: Int) -> Raster {
        let (h, w, channels) = (image.height, image.width, image.channels)
        let turned = (5...8).contains(orientation)
        let (height, width) = turned ? (w, h) : (h, w)
        var pixels: [UInt8] = []
        pixels.reserveCapacity(image.pixels.count)
        for y in 0..<height {
            for x in 0..<width {
                let (row, column) =
                    switch orientation {
                    case 2: (y, w - 1 - x)
                    case 3: (h - 1 - y, w - 1 - x)
                    case 4: (h - 1 - y, x)
                    case 5: (x, y)
                    case 6: (h - 1 - x, y)
                    case 7: (h - 1 - x, w - 1 - y)
                    case 8: (x, w - 1 - y)
                    default: (y, x)
                    }
                let start = (row * w + column) * channels
                pixels += image.pixels[start..<start + channels]
            }
        }
        return Raster(height: height, width: width, channels: channels, pixels: pixels)
    }

    /// RGBA (not premultiplied) as RGB on black: rounded, halves up.
    public static func onBlack(_ image: Raster) -> Raster {
        precondition(image.channels == 4, "RGBA has 4 channels")
        var pixels: [UInt8] = []
        pixels.reserveCapacity(image.height * image.width * 3)
        for start in stride(from: 0, to: image.pixels.count, by: 4) {
            let alpha = Int(image.pixels[start + 3])
            for place in start..<start + 3 { pixels.append(UInt8((2 * Int(image.pixels[place]) * alpha + 255) / 510)) }
        }
        return Raster(height: image.height, width: image.width, channels: 3, pixels: pixels)
    }

    /// RGB or grey as a model takes it: grey by ITU-R 601 in whole numbers, colour from grey three times.
    public static func image(_ raster: Raster, grey: Bool) -> Images {
        let (height, width) = (raster.height, raster.width)
        switch (raster.channels, grey) {
        case (1, true), (3, false):
            return Images(
                count: 1, height: height, width: width, channels: raster.channels, pixels: raster.pixels)
        case (1, false):
            let pixels = raster.pixels.flatMap { [$0, $0, $0] }
            return Images(count: 1, height: height, width: width, channels: 3, pixels: pixels)
        default:
            precondition(raster.channels == 3, "RGB has 3 channels")
            var pixels: [UInt8] = []
            for start in stride(from: 0, to: raster.pixels.count, by: 3) {
                let red = 19595 * Int(raster.pixels[start])
                let green = 38470 * Int(raster.pixels[start + 1])
                let blue = 7471 * Int(raster.pixels[start + 2])
                pixels.append(UInt8((red + green + blue + 32768) >> 16))
            }
            return Images(count: 1, height: height, width: width, channels: 1, pixels: pixels)
        }
    }
}
