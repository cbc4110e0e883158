/// Checks that the nodes of a plan fit each other and the bundle's programs, values and scalars.
struct PlanReferences {
    let bundle: ClueBundle
    let ports: References

    private static let reservedPhases = ["request", "verify"]

    /// The loops that enclose a node.
    private struct Around {
        var outermost: PlanBatches?
        var size = 0
        var epochs = false
    }

    /// - Throws: `ClueError` for the first contradiction.
    func check() throws {
        for node in bundle.plan { try check(node, Around()) }
    }

    private func check(_ number: PlanNumber) throws {
        if case .scalar(let name) = number, bundle.scalars[name] == nil {
            throw bundle.wrong("the plan names the scalar '\(name)', which the method does not have")
        }
    }

    private func check(_ node: PlanNode, _ around: Around) throws {
        var inside = around
        let body: [PlanNode]
        switch node {
        case .phase(let name, let nodes):
            if Self.reservedPhases.contains(name) {
                throw bundle.wrong("a phase of the plan is called \(name), a name of the runtime's own records")
            }
            body = nodes
        case .loop(let loop):
            try check(loop.count)
            if loop.kind == .epochs { inside.epochs = true }
            body = loop.body
        case .batches(let batches):
            if let outer = around.outermost {
                let sameOrder = batches.order == nil || batches.order == outer.order ?? "shuffled"
                let sameAugment = batches.augment == nil || batches.augment == outer.augment ?? "none"
                guard around.size % batches.size == 0, sameOrder, sameAugment else {
                    throw bundle.wrong(
                        "the batches of \(batches.size) inside batches of \(around.size) do not fit them")
                }
            } else {
                inside.outermost = batches
            }
            inside.size = batches.size
            body = batches.body
        case .reset(let values):
            for name in values where bundle.value(name) == nil {
                throw bundle.wrong("the plan resets '\(name)', which is no value")
            }
            return
        case .run(let run): return try check(run, around)
        case .stop(let stop):
            try ports.checkClassifier(stop.program)
            try check(stop.every)
            try check(stop.accuracyAtMost)
            guard around.epochs else { throw bundle.wrong("the plan has a stop outside of any epochs loop") }
            return
        }
        for child in body { try check(child, inside) }
    }

    private func check(_ node: PlanRunNode, _ around: Around) throws {
        let program = try runnable(node.program)
        let all = program.inputs + program.outputs
        for (name, binds) in node.bind {
            guard let port = all.first(where: { $0.name == name }) else {
                throw bundle.wrong("the plan binds '\(name)', which is no port of program \(program.name)")
            }
            try ports.check(port, of: program, binds: binds)
        }
        for variant in node.instead { try check(variant, of: program) }
        let written = program.outputs.filter { ["state", "carry", "cache"].contains($0.role) }.map(node.binds)
        if Set(written).count != written.count {
            throw bundle.wrong("program \(program.name) writes one value twice")
        }
        let needsBatch = all.contains { ["batch", "cache", "random"].contains($0.role) }
        if needsBatch, around.size != program.batch {
            let place = around.size > 0 ? "in batches of \(around.size)" : "outside of any batches"
            throw bundle.wrong(
                "program \(program.name) takes batches of \(program.batch) but the plan runs it \(place)")
        }
    }

    private func runnable(_ name: String) throws -> Program {
        guard let program = bundle.programs.first(where: { $0.name == name }) else {
            throw bundle.wrong("the plan runs '\(name)', which is no program")
        }
        return program
    }

    private func check(_ variant: PlanVariant, of program: Program) throws {
        let other = try runnable(variant.program)
        guard other.batch == program.batch, other.inputs == program.inputs, other.outputs == program.outputs else {
            throw bundle.wrong(
                "program \(other.name) has other ports than \(program.name), which it stands in for")
        }
        guard Set(program.files.keys).isSubset(of: other.files.keys) else {
            throw bundle.wrong("program \(other.name) lacks a runtime that \(program.name) has")
        }
        for (name, count) in variant.zeros {
            guard let value = bundle.value(name), value.role != "cache", count <= value.shape.reduce(1, *) else {
                throw bundle.wrong(
                    "program \(other.name) asks for \(count) zeros of '\(name)', which has not so many")
            }
        }
    }
}
