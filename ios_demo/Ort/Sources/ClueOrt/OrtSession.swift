import COnnxRuntime
import ClueCore
import Foundation

/// A program in ONNX Runtime. The library's handles of the arrays that it was given are kept: a plan comes back to
/// few of them.
final class OrtSession: Session {
    private let library: OrtLibrary
    private let session: OpaquePointer
    private let program: Program
    private let inputNames: [UnsafeMutablePointer<CChar>?]
    private let outputNames: [UnsafeMutablePointer<CChar>?]
    /// With each handle its array, so that neither its memory nor its identity passes to another.
    private var handles: [ObjectIdentifier: (value: OpaquePointer, array: FloatArray)] = [:]

    /// Only keeps a session that is given new arrays each time from holding on to all of them.
    private static let mostHandles = 256

    /// Takes over the session.
    init(_ library: OrtLibrary, _ session: OpaquePointer, _ program: Program) {
        (self.library, self.session, self.program) = (library, session, program)
        inputNames = program.inputs.map { strdup($0.name) }
        outputNames = program.outputs.map { strdup($0.name) }
    }

    deinit {
        releaseHandles()
        library.api.pointee.ReleaseSession(session)
        for name in inputNames + outputNames { free(name) }
    }

    func run(inputs: [FloatArray], outputs: [FloatArray]) throws {
        if handles.count > Self.mostHandles { releaseHandles() }
        let given: [OpaquePointer?] = try zip(program.inputs, inputs).map { try handle($1, of: $0) }
        var results: [OpaquePointer?] = try zip(program.outputs, outputs).map { try handle($1, of: $0) }
        precondition(given.count == inputNames.count && results.count == outputNames.count, "an array for each port")
        let status = inputNames.withUnsafeBufferPointer { inputNames in
            outputNames.withUnsafeBufferPointer { outputNames in
                inputNames.withMemoryRebound(to: UnsafePointer<CChar>?.self) { inputNames in
                    outputNames.withMemoryRebound(to: UnsafePointer<CChar>?.self) { outputNames in
                        library.api.pointee.Run(
                            session, nil, inputNames.baseAddress, given, given.count, outputNames.baseAddress,
                            outputNames.count, &results)
                    }
                }
            }
        }
        do {
            try library.check(status)
        } catch let error as ClueError {
            throw ClueError(.engine, "program \(program.name) failed in onnxruntime: \(error.message)")
        }
    }

    /// The library's handle of an array's memory.
    private func handle(_ array: FloatArray, of port: ProgramPort) throws -> OpaquePointer {
        if let known = handles[ObjectIdentifier(array)] { return known.value }
        // The library would read or write a wrong one beyond its end: nothing behind this point checks.
        guard array.shape == port.shape else {
            throw ClueError(
                .engine,
                "program \(program.name), port \(port.name): expected an array \(port.shape), got \(array.shape)")
        }
        let api = library.api.pointee
        let memory = try library.make { api.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, $0) }
        defer { api.ReleaseMemoryInfo(memory) }
        let shape = array.shape.map(Int64.init)
        let value = try library.make {
            api.CreateTensorWithDataAsOrtValue(
                memory, array.pointer, array.bytes.count, shape, shape.count,
                ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, $0)
        }
        handles[ObjectIdentifier(array)] = (value, array)
        return value
    }

    private func releaseHandles() {
        for (value, _) in handles.values { library.api.pointee.ReleaseValue(value) }
        handles = [:]
    }

    // MARK: - Ports

    /// - Throws: `ClueError` where the file's inputs or outputs are not those of the manifest.
    func checkPorts(_ file: URL) throws {
        let api = library.api.pointee
        try check(
            "input", program.inputs, file, count: api.SessionGetInputCount, name: api.SessionGetInputName,
            type: api.SessionGetInputTypeInfo)
        try check(
            "output", program.outputs, file, count: api.SessionGetOutputCount, name: api.SessionGetOutputName,
            type: api.SessionGetOutputTypeInfo)
    }

    private typealias Count = (OpaquePointer?, UnsafeMutablePointer<Int>?) -> OpaquePointer?
    private typealias Name = (
        OpaquePointer?, Int, UnsafeMutablePointer<OrtAllocator>?, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
    ) -> OpaquePointer?
    private typealias TypeOf = (OpaquePointer?, Int, UnsafeMutablePointer<OpaquePointer?>?) -> OpaquePointer?

    private func check(
        _ kind: String, _ ports: [ProgramPort], _ file: URL, count: Count, name: Name, type: TypeOf
    ) throws {
        var total = 0
        try library.check(count(session, &total))
        var found: [String: String] = [:]
        for index in 0..<total {
            let info = try library.make { type(session, index, $0) }
            defer { library.api.pointee.ReleaseTypeInfo(info) }
            found[try nameOf(index, name)] = try described(info)
        }
        let expected = Dictionary(ports.map { ($0.name, "float32 \($0.shape)") }, uniquingKeysWith: { $1 })
        for port in Set(found.keys).union(expected.keys).sorted() where found[port] != expected[port] {
            throw ClueError(
                .bundle,
                "\(file.path): \(kind) \(port) is \(found[port] ?? "missing") in the file and "
                    + "\(expected[port] ?? "missing") in the manifest; export the bundle again")
        }
    }

    private func nameOf(_ index: Int, _ name: Name) throws -> String {
        var allocator: UnsafeMutablePointer<OrtAllocator>?
        try library.check(library.api.pointee.GetAllocatorWithDefaultOptions(&allocator))
        var text: UnsafeMutablePointer<CChar>?
        try library.check(name(session, index, allocator, &text))
        guard let text else { return "" }
        defer { if let status = library.api.pointee.AllocatorFree(allocator, text) { library.api.pointee.ReleaseStatus(status) } }
        return String(cString: text)
    }

    private func described(_ info: OpaquePointer) throws -> String {
        let api = library.api.pointee
        var tensor: OpaquePointer?
        try library.check(api.CastTypeInfoToTensorInfo(info, &tensor))  // stays the info's own
        guard let tensor else { return "no tensor" }
        var type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED
        try library.check(api.GetTensorElementType(tensor, &type))
        var count = 0
        try library.check(api.GetDimensionsCount(tensor, &count))
        var shape = [Int64](repeating: 0, count: count)
        try library.check(api.GetDimensions(tensor, &shape, count))
        let name = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? "float32" : "of element type \(type.rawValue)"
        return "\(name) \(shape)"
    }
}
