/// The arrays that the runtime holds while a request runs (contract/plan.md, "Values"): the current content of
/// every value, for `n` samples; a cache is [n, *shape].
public final class Values {
    private let bundle: ClueBundle
    private let served: WeightsFile
    private let seed: UInt64
    private var contents: [String: FloatArray] = [:]
    private var spares: [String: FloatArray] = [:]

    /// - Throws: `ClueError` when a file that a value starts from does not have it.
    init(bundle: ClueBundle, served: WeightsFile, samples n: Int, seed: UInt64) throws {
        (self.bundle, self.served, self.seed) = (bundle, served, seed)
        let swapped = Self.swapped(bundle)
        for value in bundle.values {
            let shape = value.role == "cache" ? [n] + value.shape : value.shape
            contents[value.name] = FloatArray(shape: shape)
            if swapped.contains(value.name) { spares[value.name] = FloatArray(shape: shape) }
            try reset(value.name, epoch: 0, turn: 0)
        }
    }

    /// The values that some run of the plan both reads and writes: only these need a second array.
    static func swapped(_ bundle: ClueBundle) -> Set<String> {
        var found: Set<String> = []
        let held = ["state", "carry"]
        for leaf in bundle.plan.leaves {
            guard case .run(let node) = leaf.node,
                let program = bundle.programs.first(where: { $0.name == node.program })
            else { continue }
            let read = Set(program.inputs.filter { held.contains($0.role) }.map(node.binds))
            found.formUnion(read.intersection(program.outputs.filter { held.contains($0.role) }.map(node.binds)))
        }
        return found
    }

    /// The array with the content of a value; it stays the value's own.
    public func current(_ name: String) -> FloatArray {
        guard let array = contents[name] else { preconditionFailure("the bundle's checks: \(name) is a value") }
        return array
    }

    /// Where a program is to write the new content, before `written`.
    func target(_ name: String) -> FloatArray { spares[name] ?? current(name) }

    /// A program has filled the target: it is the content now.
    func written(_ name: String) {
        guard let spare = spares[name] else { return }
        spares[name] = current(name)
        contents[name] = spare
    }

    /// Give a value its first content again, in place.
    /// - Throws: `ClueError` when the file that it starts from cannot be read or does not have it.
    func reset(_ name: String, epoch: Int, turn: Int) throws {
        let array = current(name)
        switch bundle.value(name)?.start {
        case .weights(let key): try served.read(key, into: array)
        case .file(let file, let key):
            let arrays = try WeightsFile(bundle.file(file))
            guard arrays.shape(key) == array.shape else {
                throw bundle.wrong("\(file) has no array \(key) of shape \(array.shape)")
            }
            try arrays.read(key, into: array)
        case .value(let source): array.copy(from: current(source))
        case .random(let source):
            bundle.randoms[source]?.draw(seed: seed, epoch: epoch, positions: [0], turn: turn, into: array.pointer)
        default: array.fill(0)
        }
    }

    /// Whether the first `count` elements of a value are all zero (-0 too; not a number is not).
    func beginsWithZeros(_ name: String, _ count: Int) -> Bool {
        let pointer = current(name).pointer
        for i in 0..<count where pointer[i] != 0 { return false }
        return true
    }

    /// The current content of every value, in the order of the manifest.
    public var all: [(name: String, array: FloatArray)] { bundle.values.map { ($0.name, current($0.name)) } }

    /// Give every value the content that it had in a checkpoint, in place.
    /// - Throws: `ClueError` where one is missing or has another size.
    func restore(_ arrays: [String: FloatArray]) throws {
        for (name, array) in all {
            guard let saved = arrays[name], saved.count == array.count else {
                throw ClueError(.storage, "the checkpoint does not have the value \(name) of this request")
            }
            array.copy(from: saved)
        }
    }

    /// The arrays of role state by their key in the weights file.
    public var state: [(key: String, array: FloatArray)] {
        bundle.values.filter { $0.role == "state" }.map { ($0.weightsKey ?? $0.name, current($0.name)) }
    }
}
