/// What storing samples of a class came to.
public struct Added: Equatable, Sendable {
    /// The ids of those that were not there before.
    public let ids: [Int]
    /// How many samples of the class are stored now.
    public let stored: Int
    /// A sentence for people where these are too few, see ``ClueBundle/warning(stored:of:)``.
    public let warning: String?

    init(_ ids: [Int], stored: Int, of className: String, _ bundle: ClueBundle) {
        (self.ids, self.stored) = (ids, stored)
        warning = bundle.warning(stored: stored, of: className)
    }
}

extension ClueBundle {
    /// A sentence where fewer samples of a class are stored than its method was seen to need; nil where there are enough, or nothing is
    /// known.
    public func warning(stored: Int, of className: String) -> String? {
        guard stored < leastImages else { return nil }
        return "\(stored) images of \(className) are stored; fewer than \(leastImages) were too few for \(method) where it was measured"
    }
}
