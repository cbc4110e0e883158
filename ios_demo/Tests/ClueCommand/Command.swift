import ClueCore
import ClueOrt
import Foundation

/// One command of clue-swift with its arguments.
struct Command {
    static let usage = """
        clue-swift check BUNDLE
        clue-swift add BUNDLE STORE CLASS FILE      (safetensors: images, U8 [N, H, W, C])
        clue-swift submit BUNDLE STORE CLASS SEED [--set NAME=NUMBER] [--checkpoint-steps N]
        clue-swift forget BUNDLE STORE CLASS SEED   (as submit, and runs it)
        clue-swift run BUNDLE STORE [--progress]    (all that is queued or was interrupted, each once)
        """

    private let words: [String]
    private let scalars: [String: Double]
    private let options: Options
    private let tells: Bool

    init(_ arguments: [String]) throws {
        var (words, scalars, options, tells) = ([String](), [String: Double](), Options(), false)
        var rest = arguments[...]
        while let word = rest.popFirst() {
            switch word {
            case "--set":
                let parts = (rest.popFirst() ?? "").split(separator: "=")
                guard parts.count == 2, let value = Double(parts[1]) else { throw Self.wrong }
                scalars[String(parts[0])] = value
            case "--checkpoint-steps": options.checkpointSteps = rest.popFirst().flatMap { Int($0) }
            case "--progress": tells = true
            default: words.append(word)
            }
        }
        (self.words, self.scalars, self.options, self.tells) = (words, scalars, options, tells)
    }

    private static let wrong = ClueError(.invalid, "wrong arguments\n\(usage)")

    /// Carry it out; the exit code, as clue-pi's.
    func run() async throws -> Int32 {
        guard words.count >= 2 else { throw Self.wrong }
        let bundle = try ClueBundle.open(URL(fileURLWithPath: words[1]))
        let engine = try OrtEngine(threads: 1)
        if words[0] == "check" {
            let results = try GoldenCheck.check(bundle, engine: engine)
            for each in results {
                print("\(each.ok ? "ok" : "WRONG") \(each.program) \(each.output) \(each.error) of \(each.tolerance)")
            }
            return results.allSatisfy(\.ok) ? 0 : 1
        }
        guard words.count >= 3 else { throw Self.wrong }
        let unlearner = try Unlearner(
            bundle: bundle, store: URL(fileURLWithPath: words[2]), engine: engine, platform: .computer)
        switch (words[0], words.count) {
        case ("add", 5):
            let added = try await unlearner.add(images(words[4], bundle), to: words[3])
            print("\(added.ids.count) new samples")
            return 0
        case ("submit", 5):
            let request = try await unlearner.submit(
                .classNamed(words[3]), seed: UInt64(words[4]), scalars: scalars, options: options)
            print("request \(request) is queued")
            return 0
        case ("forget", 5):
            return try await watch(
                unlearner.forget(.classNamed(words[3]), seed: UInt64(words[4]), scalars: scalars, options: options))
        case ("run", 3): return try await watch(unlearner.runQueue())
        default: throw Self.wrong
        }
    }

    /// Follow a run to its end; the worst exit code of its requests.
    private func watch(_ run: Unlearner.Run) async throws -> Int32 {
        var code: Int32 = 0
        for try await progress in run {
            if let problem = progress.problem {
                complain("request \(progress.request): \(problem)")
                code = max(code, 2)
            } else if let outcome = progress.outcome {
                for text in told(outcome) { line(text) }
                code = max(code, [.done: 0, .failed: 1, .paused: 3][outcome.status] ?? 130)
            } else if tells {
                line("operation \(progress.done) of \(progress.total)")
            }
        }
        return code
    }

    /// Print at once, also into a pipe.
    private func line(_ text: String) { FileHandle.standardOutput.write(Data("\(text)\n".utf8)) }

    /// The table of clue-pi: how a request ended, in lines.
    private func told(_ outcome: Outcome) -> [String] {
        let evidence = outcome.evidence
        func percent(_ value: JSON?) -> String { String(format: "%.1f", value?.number ?? .nan) }
        var lines = [outcome.reason.map { "\(outcome.status.rawValue): \($0)" } ?? outcome.status.rawValue]
        if let after = evidence["forget_accuracy_after"] {
            let before = percent(evidence["forget_accuracy_before"])
            lines.append("forget accuracy: \(before) % before, \(percent(after)) % after")
        }
        for (name, about) in [("held_out", "held-out samples"), ("guard", "the other classes")] {
            guard let found = evidence[name], found.object != nil else { continue }
            let (before, after) = (percent(found["accuracy_before"]), percent(found["accuracy_after"]))
            lines.append("accuracy on \(about): \(before) % before, \(after) % after")
        }
        if let found = evidence["collapse"], found.object != nil {
            let probes = found["probes"]?.int ?? 0
            lines.append("\(percent(found["kept"])) % of \(probes) made-up images keep their class")
        }
        if let epochs = evidence["epochs_run"]?.int {
            let early = evidence["stopped_early"] == .bool(true) ? ", stopped early" : ""
            let (samples, steps) = (evidence["samples"]?.int ?? 0, evidence["steps"]?.int ?? 0)
            lines.append("\(samples) samples, \(epochs) epochs\(early), \(steps) steps")
        }
        if outcome.status != .done { lines.append("the old weights are still served") }
        return lines
    }

    private func images(_ path: String, _ bundle: ClueBundle) throws -> Images {
        let file = try WeightsFile(URL(fileURLWithPath: path))
        let pixels = try file.bytes("images", dtype: "U8")
        let shape = bundle.inputShape
        let size = shape.reduce(1, *)
        guard pixels.count % size == 0 else { throw ClueError(.invalid, "\(path) has images of another size") }
        return Images(
            count: pixels.count / size, height: shape[1], width: shape[2], channels: shape[0], pixels: pixels)
    }
}

/// Print a problem.
func complain(_ text: String) { FileHandle.standardError.write(Data("clue-swift: \(text)\n".utf8)) }

extension Platform {
    /// This computer, with the receipts' key in a file.
    static var computer: Platform {
        #if os(Linux)
            Platform(device: LinuxDevice(), signers: FileSigners())
        #else
            fatalError("clue-swift is for tests on Linux")
        #endif
    }
}

/// The disk that fails, or the power switch, of tests/pi_runtime/crash_shim.c, where it is loaded before libc.
enum Disk {
    private typealias Arm = @convention(c) (
        UnsafePointer<CChar>, Int32, Int, UnsafePointer<CChar>, UnsafePointer<CChar>
    ) -> Void

    /// By the environment: CLUE_DISK is the folder that is watched, CLUE_DISK_MODE, CLUE_DISK_AT and
    /// CLUE_DISK_CALLS and CLUE_DISK_TRACE the other arguments of clue_arm.
    static func armIfAsked() {
        let given = ProcessInfo.processInfo.environment
        guard let folder = given["CLUE_DISK"], let symbol = dlsym(nil, "clue_arm") else { return }
        let arm = unsafeBitCast(symbol, to: Arm.self)
        arm(
            folder, Int32(given["CLUE_DISK_MODE"] ?? "") ?? 0, Int(given["CLUE_DISK_AT"] ?? "") ?? 0,
            given["CLUE_DISK_CALLS"] ?? "", given["CLUE_DISK_TRACE"] ?? "")
    }
}
