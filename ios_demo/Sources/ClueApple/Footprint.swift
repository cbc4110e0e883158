#if canImport(Darwin)
    // mach_task_self_ is imported as a variable, though nothing changes it
    @preconcurrency import Darwin

    /// The memory that the system counts for this process: what it is ended for when there is too little.
    enum Footprint {
        /// The highest since the process began, by the kernel's ledger, in bytes; nil where the kernel does not answer.
        static func peak() -> Int? {
            var info = task_vm_info_data_t()
            var words = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
            let status = withUnsafeMutablePointer(to: &info) { pointer in
                pointer.withMemoryRebound(to: integer_t.self, capacity: Int(words)) {
                    task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &words)
                }
            }
            return status == KERN_SUCCESS ? Int(info.ledger_phys_footprint_peak) : nil
        }
    }
#endif
