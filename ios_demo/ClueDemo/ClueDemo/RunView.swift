import Charts
import ClueCore
import SwiftUI

/// A request while it runs and when it has ended: how far it is, and what the programs measure.
struct RunView: View {
    @ObservedObject var model: DemoModel

    var body: some View {
        if let progress = model.progress {
            VStack(alignment: .leading, spacing: 8) {
                Text(title(progress)).font(.headline)
                ProgressView(value: Double(progress.done), total: Double(max(progress.total, 1)))
                    .accessibilityValue("\(progress.done) of \(progress.total) operations")
                if let outcome = progress.outcome {
                    OutcomeRows(outcome: outcome)
                }
            }
            ForEach(series, id: \.self) { name in
                MetricChart(name: name, points: model.points.filter { $0.series == name })
            }
        } else {
            ProgressView("Loading the programs")
        }
        if model.isRunning {
            Button {
                model.pause()
            } label: {
                Label("Pause", systemImage: "pause")
            }
            if let request = model.progress?.request {
                Button(role: .destructive) {
                    Task { await model.cancel(request) }
                } label: {
                    Label("Cancel", systemImage: "xmark")
                }
            }
        }
    }

    private var series: [String] { Set(model.points.map(\.series)).sorted() }

    private func title(_ progress: Unlearner.Progress) -> String {
        guard progress.outcome == nil else { return "Request \(progress.request): \(progress.status.rawValue)" }
        return "Epoch \(progress.epoch + 1), \(progress.phase)"
    }
}

/// A metric over the operations of the plan, such as the energy loss, the KL or the accuracy on what is to be forgotten.
struct MetricChart: View {
    let name: String
    let points: [DemoModel.Point]

    var body: some View {
        VStack(alignment: .leading) {
            Text(name).font(.subheadline).foregroundStyle(.secondary)
            Chart(points) { point in
                LineMark(x: .value("operation", point.step), y: .value(name, point.value))
            }
            .frame(height: 120)
            .accessibilityLabel("\(name) over the run")
        }
    }
}

/// What came of a request: before and after, or why not.
struct OutcomeRows: View {
    let outcome: Outcome

    var body: some View {
        if let reason = outcome.reason { Text(reason) }
        if let before = outcome.evidence["forget_accuracy_before"]?.number,
            let after = outcome.evidence["forget_accuracy_after"]?.number
        {
            LabeledContent("Recognised before", value: percent(before))
            LabeledContent("Recognised after", value: percent(after))
        }
    }

    private func percent(_ value: Double) -> String { (value / 100).formatted(.percent.precision(.fractionLength(1))) }
}
