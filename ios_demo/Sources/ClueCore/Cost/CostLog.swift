/// The cost records of a store, oldest first: one for each phase of a request and one for the request.
public struct CostLog: Equatable, Sendable {
    public let records: [CostRecord]

    init(_ records: [JSON]) { self.records = records.map(CostRecord.init(content:)) }

    /// The records of one request.
    public func records(of request: Int) -> [CostRecord] { records.filter { $0.request == request } }
}

/// One line of the cost log (contract/cost.schema.json). What was not measured is nil, never 0.
public struct CostRecord: Equatable, Sendable {
    /// The record with all its members.
    public let content: JSON

    public var request: Int { content["request_id"]?.int ?? 0 }
    /// A phase of the plan, "verify", or "request" for the whole.
    public var phase: String { content["phase"]?.string ?? "" }
    /// Seconds.
    public var wall: Double? { content["wall_s"]?.number }
    /// Seconds of processor time.
    public var processor: Double? { content["cpu_s"]?.number }
    /// Joules, idle power included.
    public var energy: Double? { content["energy_j"]?.number }
    /// Why there is no energy, or what else is to be known of it.
    public var energyNote: String? { content["energy_note"]?.string }
    /// Bytes.
    public var peakMemory: Int? { content["peak_mem_bytes"]?.int }
    /// Programs that the plan ran.
    public var steps: Int { content["steps"]?.int ?? 0 }
    /// How the request ended.
    public var status: RequestStatus? { content["status"]?.string.flatMap(RequestStatus.init(rawValue:)) }
}
