import ClueApple
import SwiftUI

/// A classifier of digits that can forget one of them, on this phone and without a network.
@main struct ClueDemoApp: App {
    @StateObject private var model: DemoModel
    private let task: ForgettingTask

    init() {
        let model = DemoModel()
        _model = StateObject(wrappedValue: model)
        // the same identifier stands in Info.plist; a task is to be known before the app has launched
        task = ForgettingTask(identifier: "io.cluemobile.demo.forget") { try await model.opened() }
        task.register()
    }

    var body: some Scene {
        WindowGroup {
            RootView(model: model, scheduleTask: { try task.schedule() })
        }
    }
}

/// Three rooms: ask the classifier, let it forget, see what was done. Until the store is open, or when it cannot be, a sentence.
struct RootView: View {
    @ObservedObject var model: DemoModel
    let scheduleTask: () throws -> Void

    var body: some View {
        Group {
            switch model.stage {
            case .opening: ProgressView("Opening the classifier")
            case .failed(let message):
                VStack(spacing: 16) {
                    Label("The classifier cannot be opened", systemImage: "exclamationmark.triangle").font(.headline)
                    Text(message).multilineTextAlignment(.center)
                    Button("Try again") { Task { await model.open() } }.buttonStyle(.borderedProminent)
                }.padding()
            case .ready:
                TabView {
                    RecogniseView(model: model).tabItem { Label("Recognise", systemImage: "eye") }
                    ForgetView(model: model, scheduleTask: scheduleTask).tabItem { Label("Forget", systemImage: "eraser") }
                    RecordView(model: model).tabItem { Label("Record", systemImage: "list.bullet.rectangle") }
                }
            }
        }
        .task { await model.open() }
        .alert("That did not work", isPresented: $model.showsMessage) {
            Button("OK") {}
        } message: {
            Text(model.message)
        }
    }
}
