// swift-tools-version: 5.9
import PackageDescription

// A package of its own: ExecuTorch needs iOS 17 and macOS 14 and comes from a branch, and neither should be asked of an app that
// does not use it. The branch is named after the release that exported the programs (constraints.txt).
let package = Package(
    name: "ClueExecuTorch",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "ClueExecuTorch", targets: ["ClueExecuTorch"])],
    dependencies: [
        .package(name: "ClueRuntime", path: ".."),
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1"),
    ],
    targets: [
        .target(
            name: "ClueExecuTorch",
            dependencies: [
                .product(name: "ClueRuntime", package: "ClueRuntime"),
                .product(name: "executorch", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
            ],
            swiftSettings: [.enableExperimentalFeature("StrictConcurrency")])
    ]
)
