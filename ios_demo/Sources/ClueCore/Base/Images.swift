/// Images as uint8 pixels, image after image, row by row, channels last.
public struct Images: Sendable, Equatable {
    public let count: Int
    public let height: Int
    public let width: Int
    public let channels: Int
    public let pixels: [UInt8]

    /// - Precondition: `pixels` has count * height * width * channels bytes.
    public init(count: Int, height: Int, width: Int, channels: Int, pixels: [UInt8]) {
        precondition(pixels.count == count * height * width * channels, "pixels do not fill the images")
        (self.count, self.height, self.width, self.channels) = (count, height, width, channels)
        self.pixels = pixels
    }

    /// The bytes of one image.
    public var size: Int { height * width * channels }

    /// The images at these positions, in this order.
    public func at(_ positions: some Collection<Int>) -> Images {
        var chosen: [UInt8] = []
        chosen.reserveCapacity(positions.count * size)
        for position in positions { chosen += pixels[position * size..<(position + 1) * size] }
        return Images(
            count: positions.count, height: height, width: width, channels: channels, pixels: chosen)
    }
}

/// Images with the index of the class of each.
public struct Labelled: Sendable, Equatable {
    public let images: Images
    public let labels: [Int]

    public init(images: Images, labels: [Int]) {
        precondition(images.count == labels.count, "one label for each image")
        (self.images, self.labels) = (images, labels)
    }

    /// Those at these positions, in this order, with their labels.
    public func at(_ positions: some Collection<Int>) -> Labelled {
        Labelled(images: images.at(positions), labels: positions.map { labels[$0] })
    }
}
