import Foundation

/// What a check of a receipt has shown, in plain sentences.
public struct Verdict: Equatable, Sendable {
    /// What is wrong; nil for a receipt that holds. The other three are empty where something is wrong.
    public let problem: String?
    /// What the check has shown.
    public let proven: [String]
    /// What the device only states.
    public let stated: [String]
    /// What nobody may conclude from it.
    public let notProven: [String]
}

extension Receipt {
    /// Checks the receipt.
    ///
    /// `key`: the public key in hex that it must be signed with. `chain`: all receipts of the store, oldest first, this one among them.
    /// `weights`: the SHA-256 of a weights file that should be the one it ends with.
    public func verdict(key: String? = nil, chain: [Receipt]? = nil, weights: String? = nil) -> Verdict {
        if let problem = problem(key, chain, weights) {
            return Verdict(problem: problem, proven: [], stated: [], notProven: [])
        }
        return Verdict(
            problem: nil, proven: proven(key, chain, weights), stated: stated, notProven: notProven(key, chain, weights))
    }

    private func problem(_ key: String?, _ chain: [Receipt]?, _ weights: String?) -> String? {
        if let problem { return problem }
        if let key, key != self.key { return "it is signed by the key \(self.key), not by \(key)" }
        if let chain {
            guard chain.contains(self) else { return "the chain has another receipt as number \(number), or none" }
            if let problem = Receipt.problem(inChain: chain, key: self.key) { return problem }
        }
        if let weights, weights != text("weights", "after") {
            return "the weights file is not the receipt's: its SHA-256 is \(weights), the receipt has \(text("weights", "after"))"
        }
        return nil
    }

    private func text(_ names: String...) -> String {
        names.reduce(JSON.object(content)) { $0[$1] ?? .null }.string ?? ""
    }

    private func percent(_ value: JSON?) -> String { String(format: "%.1f", value?.number ?? 0) }

    private func names(_ key: String) -> String {
        (content[key]?.array ?? []).map { $0.string ?? $0.text }.joined(separator: ", ")
    }

    private var what: String {
        let samples = content["request"]?["samples"]?.int ?? 0
        guard let name = content["request"]?["class"]?["name"]?.string else { return "\(samples) samples" }
        return "the class '\(name)' with \(samples) samples"
    }

    /// What it is about, in a line.
    public var subject: String {
        switch kind {
        case "forget": return "request \(request ?? 0) made the model forget \(what)"
        case "seal": return "request \(request ?? 0) (\(what)) was made final"
        case "rollback":
            let gone = names("rolled_back")
            return "earlier weights serve again; requests without effect now: \(gone.isEmpty ? "none" : gone)"
        default:
            let back = names("classes")
            return "the weights of a new bundle serve; \(back.isEmpty ? "no forgotten class" : back) came back with them"
        }
    }

    private func proven(_ key: String?, _ chain: [Receipt]?, _ weights: String?) -> [String] {
        var told = ["Nothing in this receipt was changed since it was signed (\(text("alg")), key \(self.key))."]
        if key != nil { told.append("It was signed by the owner of the key that you gave.") }
        if chain != nil {
            told.append("The receipts form one unbroken chain from number 1; this one is part of it.")
        }
        if weights != nil { told.append("The weights file that you gave is the one that the receipt ends with.") }
        return told
    }

    private var stated: [String] {
        var told = ["At \(created) by the device's clock, \(subject)."]
        let (before, after) = (text("weights", "before"), text("weights", "after"))
        told.append(
            before == after
                ? "The weights that serve have the SHA-256 \(after)."
                : "The weights changed from SHA-256 \(before) to \(after).")
        told.append("The bundle was \(text("bundle", "name")) (manifest \(text("bundle", "manifest_sha256"))).")
        if kind == "forget" { told += measured }
        if content["erased"] != nil {
            let erased = names("erased")
            told.append("Erased: \(erased.isEmpty ? "nothing" : erased).")
        }
        for left in content["not_erased"]?.array ?? [] {
            told.append("Not erased: \(left["path"]?.string ?? "") (\(left["reason"]?.string ?? "")).")
        }
        if kind == "adopt" { told.append("The policy was \(text("policy")).") }
        return told
    }

    private var measured: [String] {
        let (evidence, method, cost) = (content["evidence"], content["method"], content["cost"])
        let seed = content["request"]?["seed"]?.int ?? 0
        let (steps, epochs) = (evidence?["steps"]?.int ?? 0, evidence?["epochs_run"]?.int ?? 0)
        var told = [
            "Method \(method?["name"]?.string ?? ""), batch \(method?["batch"]?.int ?? 0), seed \(seed): \(steps) steps in "
                + "\(epochs) epochs.",
            "On the samples that the method worked with, the accuracy went from \(percent(evidence?["forget_accuracy_before"])) % to "
                + "\(percent(evidence?["forget_accuracy_after"])) %.",
        ]
        if let held = evidence?["held_out"], !held.isNull {
            told.append(
                "On \(held["samples"]?.int ?? 0) samples of the request that the method never saw, it went from "
                    + "\(percent(held["accuracy_before"])) % to \(percent(held["accuracy_after"])) %.")
        }
        if let images = evidence?["guard"], !images.isNull {
            told.append(
                "On \(images["images"]?.int ?? 0) images of the other classes it went from \(percent(images["accuracy_before"])) % to "
                    + "\(percent(images["accuracy_after"])) %.")
        }
        if let collapse = evidence?["collapse"], !collapse.isNull {
            told.append(
                "On \(collapse["probes"]?.int ?? 0) made-up images the model answered as before in \(percent(collapse["kept"])) % "
                    + "(at least \(percent(collapse["kept_at_least"])) % were asked for).")
        }
        var energy = "energy not measured"
        if let joules = cost?["energy_j"]?.number {
            let (kind, source) = (cost?["energy_kind"]?.string ?? "", cost?["energy_source"]?.string ?? "")
            energy = "\(String(format: "%.1f", joules)) J \(kind) (\(source))"
        }
        told.append("It took \(percent(cost?["wall_s"])) s on \(text("device", "model")); \(energy).")
        return told
    }

    private func notProven(_ key: String?, _ chain: [Receipt]?, _ weights: String?) -> [String] {
        var told = ["statement", "storage"].compactMap { content[$0]?.string }
        told.append(
            "The figures and hashes are the device's own word: who controls the device and its key can sign anything, and the time is "
                + "its own clock.")
        if kind == "forget" {
            let evidence = content["evidence"]
            if evidence?["held_out"] == .null {
                told.append("No samples were held out: the accuracy is of those that the method worked with.")
            }
            if evidence?["guard"] == .null {
                told.append(
                    evidence?["collapse"] == .null
                        ? "How well the other classes are still recognised was not measured."
                        : "The other classes were checked by a signal only, without images of them.")
            }
        }
        if key == nil { told.append("Who owns the key was not checked: give the public key that you know the device by.") }
        told.append(
            chain == nil
                ? "Whether receipts before it are missing was not checked: give all receipts."
                : "Receipts after the last one may exist: a chain does not show its end.")
        if weights == nil { told.append("That the device serves these weights was not checked: give its weights file.") }
        return told
    }
}
