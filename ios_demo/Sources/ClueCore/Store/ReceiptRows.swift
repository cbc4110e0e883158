import Foundation

/// Given the SHA-256 of the receipt before and the number of this one: its canonical JSON, signed.
typealias MakeReceipt = (_ previous: String, _ number: Int) throws -> String

/// Rows of `receipts` and `receipts/ID.json`, numbered from 1 and chained by SHA-256.
final class ReceiptRows {
    private let database: Database
    private let folder: URL

    init(_ database: Database) {
        self.database = database
        folder = database.folder.appendingPathComponent("receipts")
    }

    /// Makes and inserts the next receipt; `writeFiles` writes its file after the transaction.
    func add(kind: String, request: Int?, _ make: MakeReceipt) throws {
        try database.transaction {
            let last = try database.rows("SELECT id, receipt FROM receipts ORDER BY id DESC LIMIT 1").first
            let number = (try last?.int(0) ?? 0) + 1
            let previous = try last.map { Sha256.hex(try $0.text(1).utf8) } ?? Receipt.first
            try database.execute(
                "INSERT INTO receipts (id, request_id, kind, receipt) VALUES (?, ?, ?, ?)",
                .integer(number), .optional(request), .text(kind), .text(try make(previous, number)))
        }
    }

    /// The canonical JSON of every receipt, oldest first.
    func all() throws -> [String] {
        try database.rows("SELECT receipt FROM receipts ORDER BY id").map { try $0.text(0) }
    }

    /// Writes the files that are missing. Where that fails the rows are there all the same.
    func writeFiles() throws {
        for row in try database.rows("SELECT id, receipt FROM receipts ORDER BY id") {
            let path = folder.appendingPathComponent("\(sixDigits(try row.int(0))).json")
            if !Files.exists(path) { try Files.write(path, bytes: Array(try row.text(1).utf8)) }
        }
    }
}
