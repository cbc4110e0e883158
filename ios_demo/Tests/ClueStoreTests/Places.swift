import Foundation
import XCTest

@testable import ClueCore

/// Where the tests find the contract, and where they work.
enum Places {
    /// The repository's folder contract/.
    static let contract = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("contract")
    static let scenarios = contract.appendingPathComponent("scenarios")

    /// A file of the contract as JSON.
    static func json(_ path: String) throws -> JSON {
        let bytes = try RegularFile.small(contract.appendingPathComponent(path), most: 1 << 26)
        return try StrictJSON.parse(bytes, maxBytes: 1 << 26)
    }

    /// A new empty folder, which the test removes at its end.
    static func folder(_ test: XCTestCase) throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("clue-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        test.addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
        return folder
    }

    /// A copy of a bundle of the scenarios, since sealing erases its weights.
    static func bundle(_ name: String = "toy", in folder: URL) throws -> ClueBundle {
        let root = folder.appendingPathComponent(name)
        if !FileManager.default.fileExists(atPath: root.path) {
            try FileManager.default.copyItem(at: scenarios.appendingPathComponent("bundles/\(name)"), to: root)
        }
        return try ClueBundle.open(root)
    }

    /// Changes the text of a bundle's manifest, and the hash that goes with it.
    static func change(_ root: URL, _ body: (inout String) throws -> Void) throws {
        let place = root.appendingPathComponent("manifest.json")
        var text = String(decoding: try RegularFile.small(place, most: 1 << 20), as: UTF8.self)
        try body(&text)
        try Data(text.utf8).write(to: place)
        try Data("\(Sha256.hex(text.utf8))  manifest.json\n".utf8).write(to: root.appendingPathComponent("manifest.sha256"))
    }

    /// The scenarios' images of a class, those from `range`.
    static func images(_ name: String, _ range: Range<Int>) throws -> Images {
        let file = try WeightsFile(scenarios.appendingPathComponent("images.safetensors"))
        let pixels = try file.bytes(name, dtype: "U8")
        let all = Images(count: pixels.count / 16, height: 4, width: 4, channels: 1, pixels: pixels)
        return all.at(Array(range))
    }
}

extension Platform {
    /// This computer, with the receipts' key in a file.
    static var here: Platform {
        #if os(Linux)
            Platform(device: LinuxDevice(), signers: FileSigners())
        #else
            Platform(device: StillDevice(), signers: FileSigners())
        #endif
    }
}

/// A device that tells what a test sets.
struct StillDevice: DeviceMonitor {
    var facts: DeviceFacts { DeviceFacts(model: "test", os: "test", soc: nil, ramBytes: 1 << 30) }
    var celsius: Double?
    var heat: String?
    var free: Int?
    var energy: EnergySource = .none { "no meter in this test" }
    func temperature() -> Double? { celsius }
    func throttled() -> Bool? { nil }
    func frequency() -> Double? { nil }
    func plugged() -> Bool? { nil }
    func overheated() -> String? { heat }
    func availableMemory() -> Int? { free }
    func resetPeakMemory() {}
    func peakMemory() -> Int { 1 }
    var peakMemorySource: String { "test" }
}
