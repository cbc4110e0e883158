/// Checks that a manifest's names, shapes and loops fit each other: no request is to fail on them half way.
struct References {
    let bundle: ClueBundle
    let manifest: JSON

    private static let mostElements = 1 << 31
    private static let mostSide = 65_535
    private static let inputRoles = ["state", "carry", "cache", "batch", "scalar", "random"]
    private static let outputRoles = ["state", "carry", "cache", "result", "metric"]

    /// - Throws: `ClueError` for the first contradiction in the manifest.
    func check() throws {
        try checkEntries()
        try checkSizes()
        try checkValues()
        for random in bundle.randoms.values { try check(random) }
        for (name, random) in manifest["randoms"]?.object ?? [:] where random["stream"]?.int ?? 0 > UInt32.max {
            throw bundle.wrong("random stream \(name) has a number beyond 2^32 - 1")
        }
        for name in ["predict", "predict_1"] { try checkClassifier(name) }
        for program in bundle.programs { try check(program) }
        if try bundle.program("predict_1").batch != 1 {
            throw bundle.wrong("program predict_1 must have batch 1")
        }
        try PlanReferences(bundle: bundle, ports: self).check()
        if manifest["schema_version"]?.int ?? 0 < 2, bundle.plan.leaves.contains(where: \.hasVariants) {
            throw bundle.wrong("the plan has programs to run instead, which a manifest of version 1 cannot have")
        }
    }

    /// Each file named anywhere is in the list of files, with the same hash.
    private func checkEntries() throws {
        var named = [(bundle.weights.file, bundle.weights.sha256)]
        for program in bundle.programs {
            named += program.files.values.map { ($0.file, $0.sha256) }
            named.append((program.golden.file, program.golden.sha256))
        }
        for (file, sha256) in named {
            _ = try bundle.file(file)
            guard bundle.sha256(of: file) == sha256 else {
                throw bundle.wrong("\(file) has two different SHA-256 in the manifest")
            }
        }
        for entry in manifest["state"]?.array ?? [] {
            let (name, holder) = (entry["name"]?.string ?? "", entry["value"]?.string ?? "")
            guard let value = bundle.value(holder), value.role == "state" else {
                throw bundle.wrong("state entry \(name) lies in \(holder), which is no state value")
            }
            let elements = Self.elements(entry["shape"]?.array?.compactMap(\.int) ?? [])
            guard let elements, let offset = entry["offset"]?.int, offset <= 1 << 53,
                let whole = Self.elements(value.shape), offset + elements <= whole
            else { throw bundle.wrong("state entry \(name) ends behind \(holder)") }
        }
    }

    /// The number of elements of a shape; nil beyond 2^53.
    private static func elements(_ shape: [Int]) -> Int? {
        var product = 1
        for side in shape {
            let (next, overflow) = product.multipliedReportingOverflow(by: side)
            guard !overflow, next <= 1 << 53 else { return nil }
            product = next
        }
        return product
    }

    /// No array is larger than any device could hold.
    private func checkSizes() throws {
        let ports = bundle.programs.flatMap { $0.inputs + $0.outputs }
        let shapes =
            bundle.values.map { ($0.name, $0.shape) } + bundle.randoms.values.map { ($0.name, $0.shape) }
            + ports.map { ($0.name, $0.shape) }
        for (name, shape) in shapes where Self.elements(shape).map({ $0 > Self.mostElements }) ?? true {
            throw bundle.wrong("\(name) of shape \(shape) has more than \(Self.mostElements) elements")
        }
        if bundle.inputShape.contains(where: { $0 > Self.mostSide }) || bundle.batch > Self.mostSide {
            throw bundle.wrong("sides and batches are at most \(Self.mostSide)")
        }
    }

    private func checkValues() throws {
        var earlier: [String: [Int]] = [:]
        var keys: Set<String> = []
        for value in bundle.values {
            if value.role == "state" {
                guard let key = value.weightsKey else {
                    throw bundle.wrong("state value \(value.name) does not start from the weights")
                }
                guard keys.insert(key).inserted else { throw bundle.wrong("two state values start from \(key)") }
            }
            if value.role == "cache", value.start != .zeros {
                throw bundle.wrong("cache \(value.name) does not start from zeros")
            }
            switch value.start {
            case .file(let file, _): _ = try bundle.file(file)
            case .value(let source) where earlier[source] != value.shape:
                throw bundle.wrong(
                    "value \(value.name) starts from \(source), which is no earlier value of its shape")
            case .random(let source) where bundle.randoms[source]?.shape != value.shape:
                throw bundle.wrong(
                    "value \(value.name) starts from \(source), which is no random stream of its shape")
            default: break
            }
            if value.role != "cache" { earlier[value.name] = value.shape }
        }
        if keys.isEmpty { throw bundle.wrong("no value has the role state") }
    }

    private func check(_ random: RandomStream) throws {
        if random.distribution == "uniform", random.low > random.high {
            throw bundle.wrong("random stream \(random.name) has low above high")
        }
        if random.distribution == "onehot", random.shape.last ?? 0 != random.classes || random.classes < 2 {
            throw bundle.wrong("random stream \(random.name): the last axis of its shape must be its classes")
        }
    }

    private func check(_ program: Program) throws {
        let names = (program.inputs + program.outputs).map(\.name)
        if Set(names).count != names.count {
            throw bundle.wrong("program \(program.name) has two ports of one name")
        }
        for (ports, roles) in [(program.inputs, Self.inputRoles), (program.outputs, Self.outputRoles)] {
            for port in ports {
                guard roles.contains(port.role) else {
                    throw bundle.wrong(
                        "program \(program.name), port \(port.name): role \(port.role) is not possible here")
                }
                try check(port, of: program, binds: port.binds)
            }
        }
        let golden = program.golden
        if Set(program.inputs.map(\.name)) != Set(golden.inputs.keys) {
            throw bundle.wrong("program \(program.name): golden inputs are not its inputs")
        }
        for port in program.inputs {
            var length = 0
            for draw in golden.inputs[port.name] ?? [] {
                // A sum of lengths that are each at most an array's size cannot overflow.
                length += min(draw.length, Self.mostElements + 1)
            }
            if length != Self.elements(port.shape) {
                throw bundle.wrong("program \(program.name): golden input \(port.name) has \(length) elements")
            }
        }
        if !Set(golden.outputs.map(\.port)).isSubset(of: program.outputs.map(\.name)) {
            throw bundle.wrong("program \(program.name): golden outputs are not its outputs")
        }
    }

    /// The port's shape is that of what it is joined to.
    func check(_ port: ProgramPort, of program: Program, binds: String) throws {
        var expected: [Int]?
        switch port.role {
        case "state", "carry", "cache":
            if let value = bundle.value(binds), value.role == port.role {
                expected = value.role == "cache" ? [program.batch] + value.shape : value.shape
            }
        case "batch":
            if binds == "x" { expected = [program.batch] + bundle.inputShape }
            if binds == "onehot" { expected = [program.batch, bundle.classes.count] }
        case "random": expected = bundle.randoms[binds].map { [program.batch] + $0.shape }
        case "scalar": expected = bundle.scalars[binds].map { _ in [] }
        case "metric": expected = []
        default: expected = port.shape
        }
        let place = "program \(program.name), port \(port.name)"
        guard let expected else { throw bundle.wrong("\(place): there is no \(port.role) '\(binds)'") }
        guard port.shape == expected else {
            throw bundle.wrong(
                "\(place): shape \(port.shape) does not fit \(binds.isEmpty ? port.role : binds) \(expected)")
        }
    }

    /// The program takes state and x and gives logits [B, K].
    func checkClassifier(_ name: String) throws {
        let program = try bundle.program(name)
        let inputs = program.inputs.filter { $0.role != "state" }.map(\.binds)
        guard inputs == ["x"], program.outputs.count == 1, let logits = program.outputs.first,
            logits.name == "logits", logits.role == "result"
        else { throw bundle.wrong("program \(name) must take state and x and give logits") }
        let shape = [program.batch, bundle.classes.count]
        guard logits.shape == shape else { throw bundle.wrong("program \(name): logits must be \(shape)") }
    }
}
