/// The resize of contract/resize.md: antialiased, in whole numbers, the same bytes in every language.
enum Resize {
    private static let mostSide = 65_535
    private static let bits = 16

    /// The weights of one output position: `first` is the first input position that counts.
    struct Taps: Equatable {
        let first: Int
        /// None is negative; they add up to 2^16.
        let weights: [Int]
    }

    /// One image at the model's size, by the bundle's rule: "stretch" or "center-crop".
    ///
    /// Throws ``ClueError`` for a side that is not from 1 to 65,535.
    static func fit(_ image: Images, height: Int, width: Int, rule: String) throws -> Images {
        let cropped = rule == "center-crop" ? centred(image, height, width) : image
        return try resize(cropped, height: height, width: width)
    }

    /// The taps of each of `m` output positions for `n` input positions.
    static func taps(from n: Int, to m: Int) throws -> [Taps] {
        for side in [n, m] where !(1...mostSide).contains(side) {
            throw ClueError(
                .invalid, "a side of \(side) pixels cannot be resized: sides are from 1 to \(mostSide)")
        }
        let reach = 2 * max(n, m)
        return (0..<m).map { i in
            let centre = (2 * i + 1) * n
            // j counts where |(2j + 1) m - centre| < reach
            let low = centre - reach - m
            let first = max(0, low < 0 ? 0 : low / (2 * m) + 1)
            let last = min(n - 1, (centre + reach - m - 1) / (2 * m))
            let heights = (first...last).map { reach - abs((2 * $0 + 1) * m - centre) }
            let total = heights.reduce(0, +)
            var (sum, before) = (0, 0)
            let weights = heights.map { height in
                sum += height
                let rounded = (sum << (bits + 1) + total) / (2 * total)
                defer { before = rounded }
                return rounded - before
            }
            return Taps(first: first, weights: weights)
        }
    }

    private static func resize(_ image: Images, height: Int, width: Int) throws -> Images {
        if image.height == height && image.width == width { return image }
        let (rows, columns) = (try taps(from: image.height, to: height), try taps(from: image.width, to: width))
        let (channels, stride) = (image.channels, image.width * image.channels)
        var pixels = [UInt8](repeating: 0, count: height * width * channels)
        // Down the rows first, since a row lies in memory in one piece. All sums are kept whole: below 2^24, then below 2^40.
        var sums = [Int](repeating: 0, count: stride)
        image.pixels.withUnsafeBufferPointer { source in
            for (y, down) in rows.enumerated() {
                for place in 0..<stride { sums[place] = 0 }
                for (offset, weight) in down.weights.enumerated() {
                    let row = (down.first + offset) * stride
                    for place in 0..<stride { sums[place] += weight * Int(source[row + place]) }
                }
                for (x, across) in columns.enumerated() {
                    for channel in 0..<channels {
                        var sum = 1 << (2 * bits - 1)
                        for (offset, weight) in across.weights.enumerated() {
                            sum += weight * sums[(across.first + offset) * channels + channel]
                        }
                        pixels[(y * width + x) * channels + channel] = UInt8(sum >> (2 * bits))
                    }
                }
            }
        }
        return Images(count: 1, height: height, width: width, channels: channels, pixels: pixels)
    }

    /// The largest part of the model's shape in the middle of an image.
    private static func centred(_ image: Images, _ height: Int, _ width: Int) -> Images {
        let (h, w) = (image.height, image.width)
        var (top, left, rows, columns) = (0, 0, h, w)
        if w * height > h * width {
            columns = max(1, (2 * h * width + height) / (2 * height))
            left = (w - columns) / 2
        } else {
            rows = max(1, (2 * w * height + width) / (2 * width))
            top = (h - rows) / 2
        }
        var pixels: [UInt8] = []
        for row in top..<top + rows {
            let start = (row * w + left) * image.channels
            pixels += image.pixels[start..<start + columns * image.channels]
        }
        return Images(count: 1, height: rows, width: columns, channels: image.channels, pixels: pixels)
    }
}
