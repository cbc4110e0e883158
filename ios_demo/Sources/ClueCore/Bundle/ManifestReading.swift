import Foundation

// What the schema has checked is read here without a second look: a member that it requires is there.
extension JSON {
    fileprivate func text(_ key: String) -> String { self[key]?.string ?? "" }
    fileprivate func whole(_ key: String) -> Int { self[key]?.int ?? 0 }
    fileprivate func list(_ key: String) -> [JSON] { self[key]?.array ?? [] }
    fileprivate func members(_ key: String) -> [String: JSON] { self[key]?.object ?? [:] }
    fileprivate var shape: [Int] { list("shape").compactMap(\.int) }
}

extension ClueBundle {
    init(root: URL, manifest: Manifest) throws {
        let json = manifest.json
        let method = json["method"] ?? .null
        let verify = method["verify"] ?? .null
        self.root = root
        name = json.text("name")
        sha256 = manifest.sha256
        classes = (json["model"] ?? .null).list("classes").compactMap(\.string)
        inputShape = (json["input"] ?? .null).shape
        color = (json["input"] ?? .null).text("color")
        fit = json["preprocessing"]?["fit"]?.string ?? "stretch"
        self.method = method.text("name")
        batch = method.whole("batch")
        tunedBatch = method.whole("tuned_batch")
        scalars = method.members("scalars").compactMapValues(\.number)
        forgetAccuracyAtMost = verify["forget_accuracy_at_most"]?.number ?? 0
        sampleAccuracyAtMost = verify["sample_accuracy_at_most"]?.number
        weights = FileEntry(json["weights"] ?? .null)
        let values = json.members("values")
        self.values = manifest.order["values", default: []].compactMap { name in
            values[name].map { Value(name, $0) }
        }
        randoms = Dictionary(
            uniqueKeysWithValues: json.members("randoms").map { ($0, RandomStream($0, $1)) })
        let programs = json.members("programs")
        self.programs = manifest.order["programs", default: []].compactMap { name in
            programs[name].map { Program(name, $0) }
        }
        plan = json.list("plan").map(PlanNode.init)
        let rows = json.list("files").map(FileEntry.init)
        files = Dictionary(rows.map { ($0.file, $0) }, uniquingKeysWith: { first, _ in first })
        notices = json.list("notices").compactMap(\.string)
        guardFile = json["guard"]?["file"]?.string
        guardDropAtMost = verify["guard_drop_at_most"]?.number
        collapse = verify["collapse"].map {
            Collapse(
                probes: $0.whole("probes"), keptAtLeast: $0["kept_at_least"]?.number ?? 0,
                largestShareAtMost: $0["largest_share_at_most"]?.number ?? 0)
        }
        leastImages = method.whole("least_images")
        if files.count != rows.count { throw wrong("a file is listed twice in its files") }
    }
}

extension FileEntry {
    fileprivate init(_ json: JSON) {
        self.init(file: json.text("file"), sha256: json.text("sha256"), bytes: json.whole("bytes"))
    }
}

extension ProgramPort {
    fileprivate init(_ json: JSON) {
        self.init(
            name: json.text("name"), role: json.text("role"), shape: json.shape, binds: json.text("binds"))
    }
}

extension Value {
    fileprivate init(_ name: String, _ json: JSON) {
        let start = json["init"] ?? .null
        let source: Start =
            if let key = start["weights"]?.string {
                .weights(key)
            } else if let file = start["file"]?.string {
                .file(file, key: start.text("key"))
            } else if let value = start["value"]?.string {
                .value(value)
            } else if let random = start["random"]?.string {
                .random(random)
            } else {
                .zeros
            }
        self.init(
            name: name, role: json.text("role"), shape: json.shape, start: source, storage: json.text("storage"))
    }
}

extension RandomStream {
    fileprivate init(_ name: String, _ json: JSON) {
        self.init(
            name: name, stream: UInt32(clamping: json.whole("stream")), distribution: json.text("distribution"),
            shape: json.shape, low: json["low"]?.number ?? 0, high: json["high"]?.number ?? 1,
            classes: json.whole("classes"))
    }
}

extension Program {
    fileprivate init(_ name: String, _ json: JSON) {
        let golden = json["golden"] ?? .null
        self.init(
            name: name, batch: json.whole("batch"), inputs: json.list("inputs").map(ProgramPort.init),
            outputs: json.list("outputs").map(ProgramPort.init), flops: json.whole("flops"),
            peakBytes: json.whole("peak_bytes"), files: json.members("files").mapValues(FileEntry.init),
            golden: Golden(
                file: golden.text("file"), sha256: golden.text("sha256"), seed: UInt64(golden.whole("seed")),
                inputs: golden.members("inputs").mapValues { ($0.array ?? []).map(GoldenDraw.init) },
                outputs: golden.members("outputs").sorted { $0.key < $1.key }.map {
                    Golden.Output(
                        port: $0.key, stride: $0.value.whole("stride"),
                        tolerance: $0.value["tolerance"]?.number ?? 0)
                }))
    }
}

extension GoldenDraw {
    fileprivate init(_ json: JSON) {
        self.init(
            length: json.whole("length"), distribution: json.text("distribution"),
            a: json["a"]?.number ?? 0, b: json["b"]?.number ?? 1)
    }
}

extension PlanNumber {
    fileprivate init(_ json: JSON?) {
        if let scalar = json?.string { self = .scalar(scalar) } else { self = .value(json?.number ?? 0) }
    }
}

extension PlanNode {
    fileprivate init(_ json: JSON) {
        let body = json.list("body").map(PlanNode.init)
        if let name = json["phase"]?.string {
            self = .phase(name, body: body)
        } else if json["reset"] != nil {
            self = .reset(json.list("reset").compactMap(\.string))
        } else if let program = json["run"]?.string {
            let variants = json.list("instead").map {
                PlanVariant(program: $0.text("run"), zeros: $0.members("zeros").compactMapValues(\.int))
            }
            self = .run(
                PlanRunNode(
                    program: program, bind: json.members("bind").compactMapValues(\.string), instead: variants))
        } else if let stop = json["stop"] {
            self = .stop(
                PlanStop(
                    program: stop.text("program"), every: PlanNumber(stop["every"]),
                    samples: stop.whole("samples"), accuracyAtMost: PlanNumber(stop["accuracy_at_most"])))
        } else if json.text("loop") == "batches" {
            self = .batches(
                PlanBatches(
                    size: json.whole("size"), order: json["order"]?.string, augment: json["augment"]?.string,
                    body: body))
        } else {
            self = .loop(
                PlanLoop(
                    kind: json.text("loop") == "epochs" ? .epochs : .repeat, count: PlanNumber(json["count"]),
                    body: body))
        }
    }
}
