import ClueCore
import PhotosUI
import SwiftUI

/// Choose a class, give examples of it, and let the classifier forget it.
struct ForgetView: View {
    @ObservedObject var model: DemoModel
    let scheduleTask: () throws -> Void

    var body: some View {
        NavigationStack {
            List {
                if model.isRunning || model.progress != nil {
                    Section("Run") { RunView(model: model) }
                }
                Section("Classes") {
                    ForEach(model.classes, id: \.self) { name in
                        NavigationLink(destination: ClassView(model: model, name: name, scheduleTask: scheduleTask)) {
                            ClassRow(name: name, count: model.counts[name] ?? 0, forgotten: model.forgotten.contains(name))
                        }
                    }
                }
            }
            .navigationTitle("Forget")
        }
    }
}

struct ClassRow: View {
    let name: String
    let count: Int
    let forgotten: Bool

    var body: some View {
        HStack {
            Text(name).font(.body.bold())
            Spacer()
            if forgotten { Label("forgotten", systemImage: "eraser").foregroundStyle(.orange) }
            Text("\(count) examples").foregroundStyle(.secondary)
        }
        .accessibilityElement(children: .combine)
    }
}

/// One class: its examples and what can be done with it.
struct ClassView: View {
    @ObservedObject var model: DemoModel
    let name: String
    let scheduleTask: () throws -> Void
    @State private var items: [PhotosPickerItem] = []
    @State private var asks = false

    private var count: Int { model.counts[name] ?? 0 }

    var body: some View {
        List {
            Section {
                ClassRow(name: name, count: count, forgotten: model.forgotten.contains(name))
                PhotosPicker(selection: $items, matching: .images, preferredItemEncoding: .compatible) {
                    Label("Add photos", systemImage: "photo.on.rectangle")
                }
                Button {
                    Task { await model.addSamples(of: name) }
                } label: {
                    Label("Add the app's own examples", systemImage: "tray.and.arrow.down")
                }
            } header: {
                Text("Examples")
            } footer: {
                Text("They stay on this device, encrypted, until the request is sealed.")
            }
            if let warning = model.warning(of: name) {
                Section { Text(warning).foregroundStyle(.orange) }
            }
            Section {
                Button(role: .destructive) {
                    asks = true
                } label: {
                    Label("Forget \(name)", systemImage: "eraser")
                }
                .disabled(count == 0 || model.isRunning)
                Button {
                    Task { await later() }
                } label: {
                    Label("Forget it while the device charges", systemImage: "bolt.badge.clock")
                }
                .disabled(count == 0)
            }
            if model.isRunning || model.progress != nil {
                Section("Run") { RunView(model: model) }
            }
        }
        .navigationTitle("Class \(name)")
        .task(id: items) { await add() }
        .confirmationDialog("Forget \(name)?", isPresented: $asks, titleVisibility: .visible) {
            Button("Forget", role: .destructive) { model.forget(name) }
        } message: {
            Text("The classifier will no longer tell \(name). It can be rolled back until it is sealed.")
        }
    }

    /// In a task of its own, since clearing the choice, or leaving the view, ends the view's.
    private func add() async {
        guard !items.isEmpty else { return }
        let chosen = items
        Task {
            var pictures: [Data] = []
            for item in chosen {
                if let data = try? await item.loadTransferable(type: Data.self) { pictures.append(data) }
            }
            await model.add(pictures, to: name, unread: chosen.count - pictures.count)
        }
        items = []
    }

    private func later() async {
        await model.submit(name)
        do { try scheduleTask() } catch { model.tell(error) }
    }
}
