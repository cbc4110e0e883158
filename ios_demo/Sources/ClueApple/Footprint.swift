#if canImport(Darwin)
    import Darwin

    /// The memory that the system counts for this process, in bytes: what it is ended for when there is too little.
    struct Footprint: Sendable {
        let now: Int
        /// The highest since the process began, by the kernel's ledger.
        let peak: Int

        /// nil where the kernel does not answer.
        static func read() -> Footprint? {
            var info = task_vm_info_data_t()
            var words = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
            let status = withUnsafeMutablePointer(to: &info) { pointer in
                pointer.withMemoryRebound(to: integer_t.self, capacity: Int(words)) {
                    task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &words)
                }
            }
            guard status == KERN_SUCCESS else { return nil }
            return Footprint(now: Int(info.phys_footprint), peak: Int(info.ledger_phys_footprint_peak))
        }
    }
#endif
