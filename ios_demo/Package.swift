// swift-tools-version: 5.9
import Foundation
import PackageDescription

// On Linux the package needs no other: SQLite and OpenSSL are the system's, libonnxruntime is found by the
// linker's search path. On Apple platforms SQLite and CryptoKit are part of the system, and the engines come
// as packages of their makers.
#if os(Linux)
    let packages: [Package.Dependency] = []
    let onnxRuntime: [Target.Dependency] = []
    let cryptography: [Target.Dependency] = ["COpenSSL"]
    let systemLibraries: [Target] = [
        .systemLibrary(name: "COpenSSL", providers: [.apt(["libssl-dev"])])
    ]
#else
    let packages: [Package.Dependency] = [
        .package(url: "https://github.com/microsoft/onnxruntime-swift-package-manager", from: "1.24.0")
    ]
    let onnxRuntime: [Target.Dependency] = [
        .product(name: "onnxruntime", package: "onnxruntime-swift-package-manager")
    ]
    let cryptography: [Target.Dependency] = []
    let systemLibraries: [Target] = []
#endif

let strict: [SwiftSetting] = [.enableExperimentalFeature("StrictConcurrency")]

// An app gets the package without its tests (exporters/targets/ios.py).
let hasTests = FileManager.default.fileExists(atPath: "\(Context.packageDirectory)/Tests")
let tests: [Target] =
    !hasTests
    ? []
    : [
        .testTarget(
            name: "ClueAppleTests", dependencies: ["ClueApple", "ClueCore"], exclude: ["Pictures"], swiftSettings: strict),
        .testTarget(name: "ClueCoreTests", dependencies: ["ClueCore"], swiftSettings: strict),
        // For the tests on Linux: the package as a process that can be killed.
        .executableTarget(
            name: "clue-swift", dependencies: ["ClueCore", "ClueOrt"], path: "Tests/ClueCommand",
            swiftSettings: strict),
        .testTarget(
            name: "ClueOrtTests", dependencies: ["ClueCore", "ClueOrt", "clue-swift"], swiftSettings: strict),
        .testTarget(name: "ClueStoreTests", dependencies: ["ClueCore", "ClueOrt"], swiftSettings: strict),
    ]

let package = Package(
    name: "ClueRuntime",
    // ONNX Runtime's package asks for iOS 15 and macOS 14, and what depends on it may not ask for less
    platforms: [.iOS(.v16), .macOS(.v14)],
    products: [
        .library(name: "ClueRuntime", targets: ["ClueCore"]),
        .library(name: "ClueOrt", targets: ["ClueOrt"]),
        .library(name: "ClueCoreML", targets: ["ClueCoreML"]),
        .library(name: "ClueApple", targets: ["ClueApple"]),
    ],
    dependencies: packages,
    targets: [
        .systemLibrary(name: "CSQLite", providers: [.apt(["libsqlite3-dev"])]),
        .target(
            name: "ClueCore", dependencies: ["CSQLite"] + cryptography, resources: [.process("Resources")],
            swiftSettings: strict),
        .target(
            name: "COnnxRuntime", dependencies: onnxRuntime,
            linkerSettings: [.linkedLibrary("onnxruntime", .when(platforms: [.linux]))]),
        .target(name: "ClueOrt", dependencies: ["ClueCore", "COnnxRuntime"], swiftSettings: strict),
        .target(name: "ClueCoreML", dependencies: ["ClueCore"], swiftSettings: strict),
        .target(name: "ClueApple", dependencies: ["ClueCore"], swiftSettings: strict),
    ] + systemLibraries + tests
)
