/// Which phase used how much energy, by a counter of joules; nil wherever a part was not measured.
final class EnergyLedger {
    static let request = "request"

    private let source: EnergySource
    /// Joules of this run of the request, by phase.
    private var sums: [String: Double?] = [:]
    /// Joules of the parts before an interruption.
    private var earlier: [String: Double?] = [:]
    private var phase = ""
    private var since: Double?
    private var began: Double?
    private var ended: Double?
    private var isOver = false

    init(_ source: EnergySource) {
        self.source = source
        began = read()
    }

    private func read() -> Double? {
        guard case .counter(_, _, _, let joules) = source else { return nil }
        return joules()
    }

    /// A phase begins ("" for none) and the one before ends.
    func enter(_ phase: String) {
        let now = read()
        if !self.phase.isEmpty {
            let part: Double? = if let since, let now { now - since } else { nil }
            let sum = sums[self.phase] ?? 0
            sums[self.phase] = .some(Self.plus(sum, part))
        }
        (self.phase, since) = (phase, now)
    }

    /// The request's time ends now.
    func end() {
        guard !isOver else { return }
        enter("")
        (ended, isOver) = (since, true)
    }

    /// The joules of this run of the request so far, without earlier parts; nil where they are not known.
    func here() -> Double? {
        guard let began, let now = isOver ? ended : read() else { return nil }
        return now - began
    }

    private func joules(_ phase: String) -> Double? {
        let here = phase == Self.request ? here() : measured ? sums[phase] ?? 0 : nil
        return Self.plus(earlier[phase] ?? 0, here)
    }

    private var measured: Bool { if case .counter = source { true } else { false } }

    private static func plus(_ one: Double?, _ other: Double?) -> Double? {
        guard let one, let other else { return nil }
        return one + other
    }

    /// Name, scope and kind of the source as they go on record.
    private var facts: JSONObject {
        guard case .counter(let name, let scope, let kind, _) = source else { return [:] }
        return ["source": .string(name), "scope": .string(scope), "kind": .string(kind)]
    }

    /// The energy's keys of a cost record (contract/cost.schema.json); null where it was not measured, never 0.
    func record(_ phase: String) -> JSONObject {
        let known = joules(phase).flatMap { $0 > 0 ? $0 : nil }
        let facts = known == nil ? [:] : facts
        var note: JSON = .null
        if known == nil {
            if case .none(let reason) = source {
                note = .string(reason())
            } else if earlier.values.contains(where: { $0 == nil }) {
                note = .string("an earlier part of this request was not measured in the same way")
            } else {
                note = .string("the counter gave no figure for it")
            }
        }
        return [
            "energy_j": known.map { .double(rounded($0, 6)) } ?? .null, "energy_source": facts["source"] ?? .null,
            "energy_scope": facts["scope"] ?? .null, "energy_kind": facts["kind"] ?? .null, "energy_note": note,
            "idle_w": .null, "sampler_hz": .null, "sampler_cpu_s": .null,
        ]
    }

    /// What is known so far, for a checkpoint; no phase may be open.
    func state() -> JSON {
        let names = Set([Self.request] + sums.keys + earlier.keys)
        var known: JSONObject = [:]
        for name in names { known[name] = joules(name).map(JSON.double) ?? .null }
        return .object(["facts": .object(facts), "joules": .object(known)])
    }

    /// Goes on from `state`. Parts that were measured in another way make the whole unknown. False for another version's state.
    func restore(_ state: JSON) -> Bool {
        guard let before = state["joules"]?.object, let how = state["facts"]?.object else { return false }
        let same = how == facts && !how.isEmpty
        earlier = before.mapValues { same ? $0.number : nil }
        return true
    }
}

/// A number with so many places after the point.
func rounded(_ value: Double, _ places: Int) -> Double {
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    return (value * scale).rounded(.toNearestOrEven) / scale
}
