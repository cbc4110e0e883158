import ClueCore
import PhotosUI
import SwiftUI
import UIKit

/// Ask the classifier about a photo.
struct RecogniseView: View {
    @ObservedObject var model: DemoModel
    @State private var item: PhotosPickerItem?
    @State private var picture: Data?
    @State private var answer: Answer?

    var body: some View {
        NavigationStack {
            List {
                Section {
                    if let picture, let image = UIImage(data: picture) {
                        Image(uiImage: image).resizable().scaledToFit().frame(maxHeight: 240).frame(maxWidth: .infinity)
                            .accessibilityLabel("The chosen photo")
                    }
                    // the compatible encoding is JPEG: the runtimes read JPEG and PNG
                    PhotosPicker(selection: $item, matching: .images, preferredItemEncoding: .compatible) {
                        Label("Choose a photo", systemImage: "photo")
                    }
                }
                if let answer {
                    Section("Answer") {
                        AnswerRow(answer: answer)
                    }
                }
            }
            .navigationTitle("Recognise")
            .task(id: item) { await ask() }
        }
    }

    private func ask() async {
        guard let item else { return }
        do {
            guard let data = try await item.loadTransferable(type: Data.self) else { return }
            (picture, answer) = (data, nil)
            answer = await model.classify(data)
        } catch {
            model.tell(error)
        }
    }
}

/// A class with its probability, and whether it was forgotten: then the answer is worth nothing.
struct AnswerRow: View {
    let answer: Answer

    var body: some View {
        VStack(alignment: .leading, spacing: 8) {
            Text(answer.name ?? "none").font(.title2.bold())
            if let probability = answer.probability {
                ProgressView(value: probability)
                Text(probability, format: .percent.precision(.fractionLength(1))).foregroundStyle(.secondary)
            }
            if answer.forgotten {
                Label("This class was forgotten", systemImage: "eraser").foregroundStyle(.orange)
            }
        }
        .accessibilityElement(children: .combine)
    }
}
