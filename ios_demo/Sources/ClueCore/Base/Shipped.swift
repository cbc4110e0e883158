import Foundation

/// The files of contract/ of which a copy is part of the package; a test holds that they are the same.
enum Shipped {
    private static let mostBytes = 1 << 20

    /// The content of a file by its name. Throws `ClueError` where the package lacks it.
    static func bytes(_ name: String) throws -> [UInt8] {
        guard let place = Bundle.module.url(forResource: name, withExtension: nil) else {
            throw ClueError(.bundle, "the app was built without \(name) of this package: build it again")
        }
        return try RegularFile.small(place, most: mostBytes)
    }
}
