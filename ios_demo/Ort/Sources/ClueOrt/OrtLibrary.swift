import COnnxRuntime
import ClueCore
import Foundation

/// ONNX Runtime's C API with the one environment of this process.
struct OrtLibrary: @unchecked Sendable {  // both pointers are to what lives as long as the process and is thread-safe
    static let shared = Result { try OrtLibrary() }

    let api: UnsafePointer<OrtApi>
    let environment: OpaquePointer
    let version: String

    private init() throws {
        let base = OrtGetApiBase().pointee
        version = base.GetVersionString().map { String(cString: $0) } ?? ""
        guard let api = base.GetApi(UInt32(ORT_API_VERSION)) else {
            throw ClueError(
                .engine, "ONNX Runtime \(version) is too old: this package needs 1.\(ORT_API_VERSION) or newer")
        }
        self.api = api
        environment = try made {
            api.pointee.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "clue", $0)
        } or: {
            Self.error(api, $0)
        }
        try shareArena()
    }

    /// Register one arena of working memory for all sessions of this process that ask for it.
    ///
    /// Programs hardly ever run at the same time. With an arena each, all kept what they had needed, and a
    /// request's peak was the sum. Strategy 1 asks the system for no more than is needed, instead of the next
    /// power of two.
    private func shareArena() throws {
        let memory = try make { api.pointee.CreateMemoryInfo("Cpu", OrtArenaAllocator, 0, OrtMemTypeDefault, $0) }
        defer { api.pointee.ReleaseMemoryInfo(memory) }
        let arena = try make { api.pointee.CreateArenaCfg(0, 1, -1, -1, $0) }
        defer { api.pointee.ReleaseArenaCfg(arena) }
        // An error means that the app around us has registered one: then that is shared.
        if let status = api.pointee.CreateAndRegisterAllocator(environment, memory, arena) {
            api.pointee.ReleaseStatus(status)
        }
    }

    /// - Throws: `ClueError` with the first line of the library's own message, unless the call succeeded.
    func check(_ status: OpaquePointer?) throws {
        if let status { throw Self.error(api, status) }
    }

    /// What a call gives through its last argument. Throws as `check` does.
    func make(_ call: (UnsafeMutablePointer<OpaquePointer?>) -> OpaquePointer?) throws -> OpaquePointer {
        try made(call) { Self.error(api, $0) }
    }

    private static func error(_ api: UnsafePointer<OrtApi>, _ status: OpaquePointer) -> ClueError {
        defer { api.pointee.ReleaseStatus(status) }
        let message = api.pointee.GetErrorMessage(status).map { String(cString: $0) } ?? ""
        return ClueError(.engine, String(message.split(separator: "\n").first ?? "unknown error"))
    }
}

/// The object that a call of the C API gives, or the error that its status is.
private func made(
    _ call: (UnsafeMutablePointer<OpaquePointer?>) -> OpaquePointer?, or error: (OpaquePointer) -> ClueError
) throws -> OpaquePointer {
    var object: OpaquePointer?
    if let status = call(&object) { throw error(status) }
    guard let object else { throw ClueError(.engine, "ONNX Runtime gave nothing") }
    return object
}
