import Foundation

/// Makes the receipts of one store (contract/receipt.schema.json); its key is read or made when the first is needed. Used while the lock
/// is held.
final class Issuer {
    private static let untilSealed = "kept until the request is sealed"

    private let folder: URL
    private let bundle: ClueBundle
    private let signers: any SignerSource
    private var signer: (any ReceiptSigner)?

    init(folder: URL, bundle: ClueBundle, signers: any SignerSource) {
        (self.folder, self.bundle, self.signers) = (folder, bundle, signers)
    }

    /// What a request that is done gives to its receipt.
    struct Forgotten {
        let request: Request
        /// SHA-256 of the weights files.
        let before: String
        let after: String
        /// File name of the weights before.
        let generation: String
        let evidence: JSONObject
        /// The cost record of the phase "request".
        let record: JSON
    }

    /// A request is done. Nothing was erased yet.
    func forget(_ done: Forgotten) throws -> MakeReceipt {
        let (request, record) = (done.request, done.record)
        let left = [
            NotErased(path: "store.db", reason: "the request's \(request.samples) samples, encrypted: \(Self.untilSealed)"),
            NotErased(
                path: "generations/\(done.generation)", reason: "the weights before, for a rollback: \(Self.untilSealed)"),
            NotErased(
                path: "the bundle's \(bundle.weights.file)", reason: "the weights as delivered: \(Self.untilSealed)"),
        ]
        let measured = ["steps", "epochs_run", "stopped_early", "forget_accuracy_before", "forget_accuracy_after"]
        let checked = ["accuracy_at_most", "held_out", "guard", "collapse"]
        let cost = [
            "wall_s", "cpu_s", "peak_mem_bytes", "energy_j", "energy_source", "energy_scope", "energy_kind",
        ]
        return try maker(
            "forget",
            [
                "request": about(request),
                "method": .object([
                    "name": .string(bundle.method), "batch": .int(bundle.batch),
                    "scalars": .object(request.scalars.mapValues(JSON.double)),
                ]),
                "weights": weights(done.before, done.after),
                "evidence": .object(
                    Dictionary(uniqueKeysWithValues: (measured + checked).map { ($0, done.evidence[$0] ?? .null) })),
                "cost": .object(Dictionary(uniqueKeysWithValues: cost.map { ($0, record[$0] ?? .null) })),
                "device": record["device"] ?? .null, "runtime": record["runtime"] ?? .null,
                "not_erased": Self.pairs(left), "statement": .string(Receipt.statement),
            ])
    }

    /// `requests` lost their effect, `classes` are no longer forgotten.
    func rollback(before: String, after: String, requests: [Int], classes: [String]) throws -> MakeReceipt {
        try maker(
            "rollback",
            [
                "weights": weights(before, after), "rolled_back": .array(requests.sorted().map(JSON.int)),
                "classes": Self.sorted(classes),
            ])
    }

    /// A request was made final.
    func seal(_ request: Request, serving: String, erased: [String], notErased: [NotErased]) throws -> MakeReceipt {
        try maker(
            "seal",
            [
                "request": about(request), "weights": weights(serving, serving), "erased": Self.sorted(erased),
                "not_erased": Self.pairs(notErased), "storage": .string(Receipt.storage),
                "statement": .string(Receipt.statement),
            ])
    }

    /// A new bundle's weights serve and bring `classes` back.
    func adopt(before: String, after: String, policy: UpdatePolicy, classes: [String]) throws -> MakeReceipt {
        try maker(
            "adopt",
            [
                "weights": weights(before, after), "policy": .string(policy.rawValue), "classes": Self.sorted(classes),
            ])
    }

    private func about(_ request: Request) -> JSON {
        let named = request.label.map { JSON.object(["index": .int($0), "name": .string(bundle.classes[$0])]) }
        return .object([
            "id": .int(request.id), "kind": .string(request.kind), "class": named ?? .null,
            "samples": .int(request.samples), "seed": .int(Int(request.seed)),
        ])
    }

    private func weights(_ before: String, _ after: String) -> JSON {
        .object(["before": .string(before), "after": .string(after)])
    }

    private static func sorted(_ texts: [String]) -> JSON {
        .array(texts.sorted { $0.unicodeScalars.lexicographicallyPrecedes($1.unicodeScalars) }.map(JSON.string))
    }

    private static func pairs(_ left: [NotErased]) -> JSON {
        .array(
            left.sorted { ($0.path, $0.reason) < ($1.path, $1.reason) }.map {
                .object(["path": .string($0.path), "reason": .string($0.reason)])
            })
    }

    private func maker(_ kind: String, _ body: JSONObject) throws -> MakeReceipt {
        let signer = try signer ?? signers.signer(for: folder)
        self.signer = signer
        let common: JSONObject = [
            "schema": .int(Receipt.schema), "kind": .string(kind), "created": .string(Clock.now()),
            "alg": .string(signer.algorithm), "key": .string(signer.publicKey),
            "bundle": .object(["name": .string(bundle.name), "manifest_sha256": .string(bundle.sha256)]),
        ]
        return { previous, number in
            var all = common.merging(body) { $1 }
            all["previous"] = .string(previous)
            all["number"] = .int(number)
            let unsigned = try CanonicalJSON.text(.object(all))
            all["signature"] = .string(try signer.sign(Array(unsigned.utf8)))
            return try CanonicalJSON.text(.object(all))
        }
    }
}
