// swift-tools-version: 5.9
import PackageDescription

// A package of its own: ONNX Runtime's asks for iOS 15 and macOS 14, what depends on it may not ask for less, and macOS 14 should not
// be asked of an app that uses another engine.
#if os(Linux)
    let packages: [Package.Dependency] = []
    let onnxRuntime: [Target.Dependency] = []
#else
    let packages: [Package.Dependency] = [
        .package(url: "https://github.com/microsoft/onnxruntime-swift-package-manager", from: "1.24.0")
    ]
    let onnxRuntime: [Target.Dependency] = [
        .product(name: "onnxruntime", package: "onnxruntime-swift-package-manager")
    ]
#endif

let package = Package(
    name: "ClueOrt",
    platforms: [.iOS(.v16), .macOS(.v14)],
    products: [.library(name: "ClueOrt", targets: ["ClueOrt"])],
    dependencies: [.package(name: "ClueRuntime", path: "..")] + packages,
    targets: [
        .target(
            name: "COnnxRuntime", dependencies: onnxRuntime,
            linkerSettings: [.linkedLibrary("onnxruntime", .when(platforms: [.linux]))]),
        .target(
            name: "ClueOrt",
            dependencies: [.product(name: "ClueRuntime", package: "ClueRuntime"), "COnnxRuntime"],
            swiftSettings: [.enableExperimentalFeature("StrictConcurrency")]),
    ]
)
