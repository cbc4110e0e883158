/// Samples that the plan does not get: what they show cannot come from having been trained on.
public enum Holdout {
    private static let most = 0.5

    /// How many of n samples the plan has.
    public static func planned(_ n: Int, share: Double?) -> Int { n - Int((share ?? 0) * Double(n)) }

    /// The samples of the plan, and those that are held out of it; each in their order.
    public static func split(
        _ samples: Labelled, share: Double?, seed: UInt64
    ) -> (plan: Labelled, heldOut: Labelled) {
        let n = samples.labels.count
        let count = planned(n, share: share)
        if count == n { return (samples, samples.at([])) }
        let order = Philox.permutation(seed: seed, epoch: 0, n: n, stream: Philox.Stream.heldOut)
        return (samples.at(order[..<count].sorted()), samples.at(order[count...].sorted()))
    }

    /// - Throws: `ClueError` for a share that makes no sense; `kind` is "class" or "samples".
    public static func check(_ share: Double?, kind: String) throws {
        guard let share else { return }
        guard (0...most).contains(share) else {
            throw ClueError(.invalid, "holdout is \(share): it must be from 0 to \(most), a share of the samples")
        }
        if share > 0, kind == "samples" {
            throw ClueError(
                .invalid,
                "a request of chosen samples cannot hold any out (holdout must be 0): each is to be forgotten")
        }
    }
}
