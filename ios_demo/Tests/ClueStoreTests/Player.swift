import ClueOrt
import Foundation
import XCTest

@testable import ClueCore

/// One scenario's stores and the one that is open; contract/scenarios.md says what the steps mean.
final class Player {
    struct Broken: Error, CustomStringConvertible {
        let description: String
    }

    let folder: URL
    let engine: OrtEngine
    private var name = "first"
    private var bundle = "toy"
    private var remembered: [String: String] = [:]
    private var store: ForgetStore?

    init(folder: URL) throws {
        self.folder = folder
        engine = try OrtEngine(threads: 1)
    }

    func play(_ steps: [JSON]) throws {
        for (number, step) in zip(1..., steps) {
            do {
                try play(step)
            } catch {
                throw Broken(description: "step \(number), \(step.text): \(error)")
            }
        }
    }

    private func play(_ step: JSON) throws {
        if let then = step["then"]?.object {
            for (name, wanted) in then { try holds(name, wanted) }
            try expect(try Receipt.problem(inChain: open.receipts()), nil)
        } else if let name = step["remember"]?.string {
            remembered[name] = try open.serving().sha256
        } else if let name = step["same_weights"]?.string {
            try expect(try open.serving().sha256, remembered[name])
        } else if let words = step["error"]?.array {
            do {
                try act(step)
            } catch let error as ClueError {
                for word in words.compactMap(\.string) where !error.message.contains(word) {
                    throw Broken(description: "'\(error)' does not have the word '\(word)'")
                }
                return
            }
            throw Broken(description: "it did not fail")
        } else {
            try act(step)
        }
    }

    private func expect<Value: Equatable>(_ found: Value, _ wanted: Value, _ what: String = "") throws {
        guard found == wanted else { throw Broken(description: "\(what) is \(found), not \(wanted)") }
    }

    private func known(_ step: JSON, _ names: Set<String>) throws {
        let unknown = Set(step.object?.keys.map { $0 } ?? []).subtracting(names.union(["do", "error"]))
        try expect(unknown, [], "words that this player does not know")
    }

    private var open: ForgetStore {
        get throws {
            guard let store else { throw Broken(description: "no store is open") }
            return store
        }
    }

    private var desk: Desk {
        get throws { Desk(store: try open, engine: engine, device: Platform.here.device) }
    }

    private var place: URL { folder.appendingPathComponent(name) }
    private var storeFolder: URL { place.appendingPathComponent("store") }

    private func close() {
        store?.close()
        store = nil
    }

    // MARK: what is done

    private func act(_ step: JSON) throws {
        let request = step["request"]?.int ?? 0
        switch step["do"]?.string {
        case "store":
            try known(step, ["name"])
            close()
            name = step["name"]?.string ?? ""
        case "open":
            try known(step, ["bundle", "policy"])
            try openStore(step["bundle"]?.string ?? "", step["policy"]?.string ?? "refuse")
        case "add":
            try known(step, ["label", "images", "new", "of"])
            let label = step["label"]?.string ?? ""
            let images = try images(step, of: label == "bird" ? "cat" : label)
            let new = try open.add(images, label: try open.bundle.label(label))
            try expect(new.count, step["new"]?.int ?? 0, "new")
        case "submit":
            try known(step, ["request", "label", "samples", "seed", "scalars", "options"])
            let target: ForgetTarget =
                if let label = step["label"]?.string { .classNamed(label) } else {
                    .samples(step["samples"]?.array?.compactMap(\.int) ?? [])
                }
            let id = try desk.submit(
                target, seed: step["seed"]?.int.map(UInt64.init),
                scalars: step["scalars"]?.object?.compactMapValues(\.number) ?? [:],
                options: try Options(row: step["options"]?.object ?? [:]))
            try expect(id, request, "request")
        case "run": try run(step, request)
        case "run_next":
            try known(step, ["request", "status"])
            let next = try desk.next()
            try expect(next, step["request"]?.int, "request")
            if let next { try expect(try desk.run(next, Control()).status.rawValue, step["status"]?.string ?? "") }
        case "cancel":
            try known(step, ["request"])
            try expect(try desk.cancel(request), true, "cancelled")
        case "retry":
            try known(step, ["request", "seed", "new"])
            try expect(try desk.retry(request, seed: step["seed"]?.int.map(UInt64.init)), step["new"]?.int ?? 0)
        case "rollback":
            try known(step, ["generation", "lost"])
            let lost = try open.rollback(to: step["generation"]?.int ?? 0)
            try expect(lost, step["lost"]?.array?.compactMap(\.int) ?? [], "lost")
        case "seal":
            try known(step, ["request", "crash"])
            if let point = step["crash"]?.string {
                try crash(Child(action: .seal, request: request, point: point, after: 0))
            } else {
                _ = try open.seal(request)
            }
        default: throw Broken(description: "this player does not know the step")
        }
    }

    private func openStore(_ name: String, _ policy: String) throws {
        close()
        bundle = name
        guard let policy = UpdatePolicy(rawValue: policy) else { throw Broken(description: "policy \(policy)") }
        store = try ForgetStore(
            folder: storeFolder, bundle: try Places.bundle(name, in: place), policy: policy, signers: FileSigners())
    }

    private func images(_ step: JSON, of label: String) throws -> Images {
        let bounds = step["images"]?.array?.compactMap(\.int) ?? []
        return try Places.images(step["of"]?.string ?? label, bounds[0]..<bounds[1])
    }

    private func run(_ step: JSON, _ request: Int) throws {
        try known(step, ["request", "status", "crash", "after", "cancel_after", "stop_after"])
        if let point = step["crash"]?.string {
            try crash(Child(action: .run, request: request, point: point, after: step["after"]?.int ?? 0))
            return
        }
        var done = 0
        var control = Control(progress: { _ in done += 1 })
        control.cancel = { done >= step["cancel_after"]?.int ?? .max }
        control.stop = { done >= step["stop_after"]?.int ?? .max }
        try expect(try desk.run(request, control).status.rawValue, step["status"]?.string ?? "", "status")
    }

    /// Lets a process of its own open the store and die on its way.
    private func crash(_ child: Child) throws {
        close()
        try child.runToDeath(bundle: place.appendingPathComponent(bundle), store: storeFolder)
    }

    // MARK: what holds then

    private func holds(_ name: String, _ wanted: JSON) throws {
        switch name {
        case "requests": try rows(try open.requests().map(Self.row), wanted)
        case "generations": try rows(try open.generations().map(Self.row), wanted)
        case "generation_files": try expect(try files("generations", ".safetensors"), Self.numbers(wanted), name)
        case "checkpoints": try expect(try files("checkpoints", ".safetensors"), Self.numbers(wanted), name)
        case "samples":
            let counts = try open.sampleCounts().map { (try open.bundle.classes[$0], JSON.int($1)) }
            try expect(JSON.object(Dictionary(uniqueKeysWithValues: counts)), wanted, name)
        case "keys": try expect(try files("keys", ".key").count, wanted.int ?? 0, name)
        case "forgotten":
            let found = try open.forgotten().map { JSON.string(try open.bundle.classes[$0]) }
            try expect(JSON.array(found), wanted, name)
        case "records":
            for (request, phases) in wanted.object ?? [:] {
                let mine = try open.records().filter { $0["request_id"]?.int == Int(request) }
                try expect(JSON.array(mine.compactMap { $0["phase"] }), phases, name)
            }
        case "receipts":
            let found = try open.receipts()
            try expect(found.map { JSON.string($0.kind) }, wanted.array?.compactMap { $0["kind"] } ?? [], name)
            for (receipt, expected) in zip(found, wanted.array ?? []) {
                if let id = expected["request_id"]?.int { try expect(receipt.request, id, name) }
            }
        case "answers": try answers(wanted)
        case "bytes_of":
            try expect(wanted, .array([]))
            try nothingIsLeft()
        case "bundle_weights":
            let weights = place.appendingPathComponent(bundle).appendingPathComponent("weights.safetensors")
            try expect(FileManager.default.fileExists(atPath: weights.path), wanted.bool ?? true, name)
        default: throw Broken(description: "this player does not know '\(name)'")
        }
    }

    private static func numbers(_ wanted: JSON) -> [String] {
        (wanted.array ?? []).compactMap(\.int).map { "\(sixDigits($0)).safetensors" }
    }

    private func files(_ folder: String, _ suffix: String) throws -> [String] {
        try Files.names(in: storeFolder.appendingPathComponent(folder)).filter { $0.hasSuffix(suffix) }
    }

    private func rows(_ found: [JSONObject], _ wanted: JSON) throws {
        let expected = wanted.array ?? []
        try expect(found.count, expected.count, "rows")
        for (row, expected) in zip(found, expected) {
            for (name, value) in expected.object ?? [:] {
                switch name {
                case "reason":
                    let reason = row[name]?.string ?? ""
                    if !reason.contains(value.string ?? "") { throw Broken(description: "reason is '\(reason)'") }
                case "evidence":
                    for (key, figure) in value.object ?? [:] { try expect(row[name]?[key], figure, key) }
                default:
                    guard let cell = row[name] else { throw Broken(description: "no column \(name)") }
                    try expect(cell, value, name)
                }
            }
        }
    }

    private static func row(_ one: Request) -> JSONObject {
        [
            "id": .int(one.id), "kind": .string(one.kind), "class": one.className.map(JSON.string) ?? .null,
            "status": .string(one.status.rawValue), "samples": .int(one.samples),
            "base_generation": one.baseGeneration.map(JSON.int) ?? .null,
            "rolled_back": .bool(one.rolledBack != nil), "sealed": .bool(one.sealed != nil),
            "reason": one.reason.map(JSON.string) ?? .null, "evidence": .object(one.evidence),
            "retry_of": one.retryOf.map(JSON.int) ?? .null,
        ]
    }

    private static func row(_ one: Generation) -> JSONObject {
        [
            "id": .int(one.id), "request_id": one.request.map(JSON.int) ?? .null,
            "parent": one.parent.map(JSON.int) ?? .null, "erased": .bool(one.erased != nil),
            "serving": .bool(one.serving),
        ]
    }

    private func answers(_ wanted: JSON) throws {
        let images = try images(wanted, of: "")
        let server = WeightsServer(bundle: try open.bundle, engine: engine)
        let serving = try open.serving()
        let logits = try server.logits(images, weights: serving.file, sha256: serving.sha256)
        guard let choice = wanted["choice"]?.string.flatMap(ForgottenChoice.init(rawValue:)) else {
            throw Broken(description: "no choice")
        }
        let found = try Answer.of(
            logits, classes: try open.bundle.classes, forgotten: Set(try open.forgotten()), choice)
        if let never = wanted["never"]?.string {
            try expect(found.contains { $0.name == never }, false, "an answer \(never)")
        }
        if let classes = wanted["classes"]?.array {
            try expect(found.map { $0.name.map(JSON.string) ?? .null }, classes, "classes")
            try expect(found.map { JSON.bool($0.forgotten) }, wanted["forgotten"]?.array ?? [], "forgotten")
        }
    }

    /// Of the sealed class's images nothing is found in any file of the store.
    private func nothingIsLeft() throws {
        var content = Data()
        let inside = FileManager.default.enumerator(at: storeFolder, includingPropertiesForKeys: nil)
        while let file = inside?.nextObject() as? URL {
            if let bytes = try? RegularFile.small(file, most: 1 << 30) { content.append(contentsOf: bytes) }
        }
        try expect(content.count > 10_000, true, "the store has files")
        let images = try Places.images("cat", 0..<24)
        for index in 0..<images.count {
            let pixels = Data(images.at([index]).pixels)
            if content.range(of: pixels) != nil { throw Broken(description: "image \(index) is in the store") }
        }
    }
}
