import ClueCore
import SwiftUI

/// What was done: requests with their cost, generations of weights, receipts.
struct RecordView: View {
    @ObservedObject var model: DemoModel

    var body: some View {
        NavigationStack {
            List {
                Section("Requests") {
                    ForEach(model.requests, id: \.id) { request in
                        NavigationLink(destination: RequestView(model: model, request: request)) {
                            LabeledContent("\(request.id). \(request.className ?? "samples")", value: request.status.rawValue)
                        }
                    }
                }
                Section {
                    ForEach(model.generations, id: \.id) { generation in
                        GenerationRow(model: model, generation: generation)
                    }
                } header: {
                    Text("Weights")
                } footer: {
                    Text("Rolling back lets earlier weights serve again. Sealing a request erases them.")
                }
                Section("Receipts") {
                    ForEach(model.receipts, id: \.number) { receipt in
                        ShareLink(item: receipt.text) {
                            LabeledContent("\(receipt.number). \(receipt.kind)", value: receipt.created)
                        }
                        .accessibilityHint("Shares the signed receipt")
                    }
                }
            }
            .navigationTitle("Record")
            .refreshable { await model.refresh() }
        }
    }
}

struct GenerationRow: View {
    @ObservedObject var model: DemoModel
    let generation: Generation

    var body: some View {
        HStack {
            VStack(alignment: .leading) {
                Text("Generation \(generation.id)")
                Text(generation.created).font(.caption).foregroundStyle(.secondary)
            }
            Spacer()
            if generation.serving {
                Text("serves").foregroundStyle(.secondary)
            } else if generation.erased != nil {
                Text("erased").foregroundStyle(.secondary)
            } else {
                Button("Roll back") { Task { await model.rollback(to: generation.id) } }
                    .buttonStyle(.bordered)
                    .accessibilityLabel("Roll back to generation \(generation.id)")
            }
        }
    }
}

/// One request with its phases' cost. What was not measured says so.
struct RequestView: View {
    @ObservedObject var model: DemoModel
    let request: Request
    @State private var asks = false

    var body: some View {
        List {
            Section("Request") {
                LabeledContent("State", value: request.status.rawValue)
                LabeledContent("Samples", value: "\(request.samples)")
                LabeledContent("Seed", value: "\(request.seed)")
                if let reason = request.reason { Text(reason) }
                if request.sealed != nil { Label("Sealed", systemImage: "lock") }
            }
            ForEach(records, id: \.phase) { record in
                Section(record.phase == "request" ? "Whole request" : "Phase \(record.phase)") { CostRows(record: record) }
            }
            Section {
                if request.status == .paused || request.status == .queued {
                    Button("Go on") { model.resume(request.id) }.disabled(model.isRunning)
                    Button("Cancel", role: .destructive) { Task { await model.cancel(request.id) } }
                }
                if request.status == .done, request.sealed == nil, request.rolledBack == nil {
                    Button("Seal", role: .destructive) { asks = true }
                }
            }
        }
        .navigationTitle("Request \(request.id)")
        .confirmationDialog("Seal request \(request.id)?", isPresented: $asks, titleVisibility: .visible) {
            Button("Seal for good", role: .destructive) { Task { await model.seal(request.id) } }
        } message: {
            Text("Its photos, their keys and the weights from before are erased. It cannot be rolled back any more.")
        }
    }

    private var records: [CostRecord] { model.costs.filter { $0.request == request.id } }
}

struct CostRows: View {
    let record: CostRecord

    var body: some View {
        LabeledContent("Time", value: record.wall.map { "\($0.formatted(.number.precision(.fractionLength(2)))) s" } ?? "not measured")
        LabeledContent("Steps", value: "\(record.steps)")
        LabeledContent("Largest memory", value: record.peakMemory.map { "\($0 >> 20) MiB" } ?? "not measured")
        LabeledContent("Energy", value: record.energy.map { "\($0.formatted(.number.precision(.fractionLength(1)))) J" } ?? "not measured")
        if record.energy == nil, let note = record.energyNote {
            Text(note).font(.caption).foregroundStyle(.secondary)
        }
    }
}
