// swift-tools-version: 5.9
import Foundation
import PackageDescription

// This package names no other: SQLite and CryptoKit are part of Apple's systems, on Linux SQLite and OpenSSL are the system's.
// The engines that come as packages of their makers have packages of their own, Ort/ and ExecuTorch/: those packages ask for newer
// systems, and a Swift package has one minimum for all its targets.
#if os(Linux)
    let cryptography: [Target.Dependency] = ["COpenSSL"]
    let systemLibraries: [Target] = [
        .systemLibrary(name: "COpenSSL", providers: [.apt(["libssl-dev"])])
    ]
#else
    let cryptography: [Target.Dependency] = []
    let systemLibraries: [Target] = []
#endif

let strict: [SwiftSetting] = [.enableExperimentalFeature("StrictConcurrency")]

// An app gets the package without its tests (exporters/targets/ios.py).
let hasTests = FileManager.default.fileExists(atPath: "\(Context.packageDirectory)/Tests")
var tests: [Target] = [
    .testTarget(
        name: "ClueAppleTests", dependencies: ["ClueApple", "ClueCore"], exclude: ["Pictures"], swiftSettings: strict),
    .testTarget(name: "ClueCoreTests", dependencies: ["ClueCore"], swiftSettings: strict),
]

// On Linux ONNX Runtime is the system's and sets no minimum, so its engine is built and tested with the rest, by one `swift test`.
#if os(Linux)
    tests += [
        .target(
            name: "COnnxRuntime", path: "Ort/Sources/COnnxRuntime", linkerSettings: [.linkedLibrary("onnxruntime")]),
        .target(
            name: "ClueOrt", dependencies: ["ClueCore", "COnnxRuntime"], path: "Ort/Sources/ClueOrt", swiftSettings: strict),
        // the package as a process that can be killed
        .executableTarget(
            name: "clue-swift", dependencies: ["ClueCore", "ClueOrt"], path: "Tests/ClueCommand", swiftSettings: strict),
        .testTarget(
            name: "ClueOrtTests", dependencies: ["ClueCore", "ClueOrt", "clue-swift"], swiftSettings: strict),
        .testTarget(name: "ClueStoreTests", dependencies: ["ClueCore", "ClueOrt"], swiftSettings: strict),
    ]
#endif

let package = Package(
    name: "ClueRuntime",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "ClueRuntime", targets: ["ClueCore"]),
        .library(name: "ClueCoreML", targets: ["ClueCoreML"]),
        .library(name: "ClueApple", targets: ["ClueApple"]),
    ],
    targets: [
        .systemLibrary(name: "CSQLite", providers: [.apt(["libsqlite3-dev"])]),
        .target(
            name: "ClueCore", dependencies: ["CSQLite"] + cryptography, resources: [.process("Resources")],
            swiftSettings: strict),
        .target(name: "ClueCoreML", dependencies: ["ClueCore"], swiftSettings: strict),
        .target(name: "ClueApple", dependencies: ["ClueCore"], swiftSettings: strict),
    ] + systemLibraries + (hasTests ? tests : [])
)
