import Foundation

/// What the device states about a forget request, a rollback, a sealing or new weights: canonical JSON (RFC 8785), signed and chained.
public struct Receipt: Equatable, Sendable {
    static let schema = 1
    /// `previous` of the first receipt.
    static let first = String(repeating: "0", count: 64)
    static let statement =
        "The method is approximate: it gives no formal guarantee that nothing of the samples is left in the weights."
    static let storage =
        "Files were overwritten and removed. Flash storage may keep old blocks until it uses them again: samples in them are "
        + "unreadable since their key was destroyed, weights are not."

    /// The receipt itself: exactly these characters in UTF-8; other bytes of the same meaning are no receipt.
    public let text: String
    /// Its members.
    public let content: JSONObject

    /// Reads a receipt. Throws ``ClueError`` when it is not in canonical form; `problem` looks at the rest.
    public init(text: String) throws {
        guard let content = try CanonicalJSON.parse(Array(text.utf8)).object else {
            throw ClueError(.invalid, "it is no receipt of clue-mobile: it is no JSON object")
        }
        (self.text, self.content) = (text, content)
    }

    /// Its place in the chain of its store, from 1.
    public var number: Int { content["number"]?.int ?? 0 }
    /// "forget", "rollback", "seal" or "adopt".
    public var kind: String { content["kind"]?.string ?? "" }
    /// UTC by the device's clock, ISO 8601.
    public var created: String { content["created"]?.string ?? "" }
    /// The request that it is about, where it is about one.
    public var request: Int? { content["request"]?["id"]?.int }
    /// The public key that it names, in hex.
    public var key: String { content["key"]?.string ?? "" }
    /// What the next receipt has as `previous`.
    public var sha256: String { Sha256.hex(text.utf8) }

    /// What is wrong with the receipt itself: it was changed after it was signed, or it lacks a part; nil when it holds.
    ///
    /// It proves that nothing was changed since it was signed by the owner of the key in it; its figures remain the device's own word.
    public var problem: String? {
        guard let signature = content["signature"]?.string, let algorithm = content["alg"]?.string else {
            return "it is no receipt of clue-mobile: it has no signature"
        }
        if let version = content["schema"]?.int, version > Self.schema {
            return "it was made by a newer runtime (receipt version \(version)): update this one"
        }
        var unsigned = content
        unsigned["signature"] = nil
        guard let bytes = try? CanonicalJSON.text(.object(unsigned)) else { return "it is no canonical JSON" }
        guard Signature.isValid(signature, of: Array(bytes.utf8), algorithm: algorithm, key: key) else {
            return "it was changed after it was signed: the signature is not right for the key in it"
        }
        do {
            try JSONSchema.shipped("receipt.schema.json").check(.object(content))
        } catch let problem as JSONSchema.Problem {
            let place = problem.place.isEmpty ? "top level" : problem.place.joined(separator: "/")
            return "it is no receipt of clue-mobile: \(place): \(problem.text)"
        } catch {
            return "\(error)"
        }
        return nil
    }

    /// What is wrong with a chain, oldest first: a receipt that does not hold, another key, a gap; nil when it holds. Whether later
    /// receipts exist a chain does not show.
    public static func problem(inChain receipts: [Receipt], key: String? = nil) -> String? {
        var previous = first
        for (number, receipt) in zip(1..., receipts) {
            if let problem = receipt.problem { return "receipt \(number): \(problem)" }
            guard receipt.key == key ?? receipts[0].key else { return "receipt \(number) is signed by another key" }
            guard receipt.number == number else { return "the chain has no number \(number): a receipt was removed" }
            guard receipt.content["previous"] == .string(previous) else {
                return "the chain is broken at number \(number): it does not follow the receipt before it"
            }
            previous = receipt.sha256
        }
        return nil
    }
}
