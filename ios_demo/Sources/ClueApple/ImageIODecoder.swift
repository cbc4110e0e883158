#if canImport(ImageIO)
    import ClueCore
    import CoreGraphics
    import Foundation
    import ImageIO

    /// Reads JPEG and PNG with ImageIO, by the table "Decode" of contract/resize.md.
    ///
    /// The samples are taken as they were decoded, not drawn: drawing would convert them from the picture's colour profile, and the
    /// contract ignores profiles. HEIC is refused as everywhere; ask the photo picker for the compatible representation.
    public struct ImageIODecoder: ImageDecoder {
        public init() {}

        /// One image of the picture's own size, with 3 channels, or 1 when `grey`.
        /// - Throws: ``ClueError`` saying what is wrong with the picture.
        public func decode(_ data: Data, grey: Bool) throws -> Images {
            let file = try PictureFile([UInt8](data))
            let options = [kCGImageSourceShouldCache: false, kCGImageSourceShouldAllowFloat: false] as CFDictionary
            guard let source = CGImageSourceCreateWithData(data as CFData, options),
                CGImageSourceGetStatusAtIndex(source, 0) == .statusComplete,
                let image = CGImageSourceCreateImageAtIndex(source, 0, options)
            else { throw PictureFile.refused("the \(file.format.rawValue) data is damaged") }
            let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, options) as? [CFString: Any]
            let orientation = (properties?[kCGImagePropertyOrientation] as? NSNumber)?.intValue
            return try Self.raw(image, orientation: orientation ?? 1).upright(grey: grey)
        }

        /// The image's samples as they lie in memory.
        private static func raw(_ image: CGImage, orientation: Int) throws -> RawPicture {
            guard let space = image.colorSpace, let data = image.dataProvider?.data else {
                throw PictureFile.refused("the decoder gives no samples")
            }
            guard !image.bitmapInfo.contains(.floatComponents) else {
                throw PictureFile.refused("its samples are floating point: convert it to RGB or grey of 8 bits first")
            }
            var picture = RawPicture(
                width: image.width, height: image.height, colours: 1, bits: image.bitsPerComponent, bytesPerRow: image.bytesPerRow,
                orientation: orientation, bytes: [UInt8](data as Data))
            switch space.model {
            case .monochrome: break
            case .rgb: picture.colours = 3
            case .indexed:
                guard let palette = space.colorTable, space.baseColorSpace?.model == .rgb else { throw otherColours }
                picture.palette = palette
            default: throw otherColours
            }
            switch image.alphaInfo {
            case .none: break
            case .noneSkipLast: picture.alpha = .skipped
            case .noneSkipFirst: (picture.alpha, picture.alphaFirst) = (.skipped, true)
            case .last: picture.alpha = .straight
            case .first: (picture.alpha, picture.alphaFirst) = (.straight, true)
            case .premultipliedLast: picture.alpha = .premultiplied
            case .premultipliedFirst: (picture.alpha, picture.alphaFirst) = (.premultiplied, true)
            default: throw otherColours
            }
            switch image.byteOrderInfo {
            case .order16Little: picture.lowerByteFirst = true
            case .order32Little: picture.reversed = true
            default: break
            }
            let whole = picture.samples * picture.bits
            guard image.bitsPerPixel == whole, !picture.reversed || (picture.samples == 4 && picture.bits == 8) else {
                throw PictureFile.refused("its samples lie in an order that is not known")
            }
            return picture
        }

        private static var otherColours: ClueError {
            PictureFile.refused("its colours are neither RGB nor grey: convert it first")
        }
    }
#endif
