/// A number of the plan: as it stands, or the name of a scalar.
public enum PlanNumber: Sendable, Equatable {
    case value(Double)
    case scalar(String)
}

/// A node of the plan (contract/plan.md, "Nodes").
public indirect enum PlanNode: Sendable, Equatable {
    /// A part whose cost is recorded under its name.
    case phase(String, body: [PlanNode])
    case loop(PlanLoop)
    case batches(PlanBatches)
    /// The values get their first content again.
    case reset([String])
    case run(PlanRunNode)
    case stop(PlanStop)
}

/// A loop that counts (contract/plan.md).
public struct PlanLoop: Sendable, Equatable {
    /// Epochs are where checkpoints go and an early stop ends; a repeat is neither.
    public enum Kind: String, Sendable { case epochs, `repeat` }

    public let kind: Kind
    public let count: PlanNumber
    public let body: [PlanNode]
}

/// The body once for each batch; `order` and `augment` are nil where the manifest does not say.
public struct PlanBatches: Sendable, Equatable {
    public let size: Int
    public let order: String?
    public let augment: String?
    public let body: [PlanNode]
}

/// A program with the same ports, which runs instead where the first COUNT elements of each value are zero.
public struct PlanVariant: Sendable, Equatable {
    public let program: String
    public let zeros: [String: Int]
}

/// `bind` replaces what the ports named in it are joined to; the first of `instead` that may run does.
public struct PlanRunNode: Sendable, Equatable {
    public let program: String
    public let bind: [String: String]
    public let instead: [PlanVariant]

    /// What a port is joined to here.
    func binds(_ port: ProgramPort) -> String { bind[port.name] ?? port.binds }
}

/// Ends the epochs early: each `every`-th time the accuracy of `program` on at most `samples` samples is measured, in percent.
public struct PlanStop: Sendable, Equatable {
    public let program: String
    public let every: PlanNumber
    public let samples: Int
    public let accuracyAtMost: PlanNumber
}

extension [PlanNode] {
    /// Each reset, run and stop as it stands in the plan, once, with the phase that it stands in.
    var leaves: [PlanLeaf] { leaves(phase: "") }

    private func leaves(phase: String) -> [PlanLeaf] {
        flatMap { node -> [PlanLeaf] in
            switch node {
            case .phase(let name, let body): body.leaves(phase: name)
            case .loop(let loop): loop.body.leaves(phase: phase)
            case .batches(let batches): batches.body.leaves(phase: phase)
            default: [PlanLeaf(phase: phase, node: node)]
            }
        }
    }
}

/// A reset, run or stop with the phase that it stands in.
struct PlanLeaf {
    let phase: String
    let node: PlanNode

    var hasVariants: Bool {
        if case .run(let run) = node { !run.instead.isEmpty } else { false }
    }
}
