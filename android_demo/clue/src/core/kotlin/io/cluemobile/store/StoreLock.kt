package io.cluemobile.store

import io.cluemobile.BusyException
import io.cluemobile.files.storage
import java.nio.channels.FileChannel
import java.nio.file.Path
import java.nio.file.StandardOpenOption.CREATE
import java.nio.file.StandardOpenOption.WRITE
import java.nio.file.attribute.PosixFilePermissions
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.TimeUnit
import java.util.concurrent.locks.ReentrantLock

private const val LOOK_AGAIN_MS = 20L
private val OWNER_ONLY = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"))

/**
 * The lock of a store's folder: one thread of one process at a time. The system frees it when the process dies.
 *
 * It is a lock of `fcntl`, the only kind that Java has. The system frees such a lock as soon as the process closes the
 * file anywhere, so within this process a set of folders decides before the file is opened.
 */
internal class StoreLock(private val folder: Path) {
    private val mine = ReentrantLock()

    /**
     * Runs [work] while the lock is held; [gained] is called once it is. Who holds it already may take it again.
     *
     * Throws [BusyException] when another holds it for [waitMs] milliseconds.
     */
    fun <T> hold(waitMs: Long, gained: () -> Unit, work: () -> T): T {
        if (mine.isHeldByCurrentThread) return work()
        val until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(waitMs)
        if (!mine.tryLock(waitMs, TimeUnit.MILLISECONDS)) throw busy()
        try {
            val place = storage("lock", folder) { folder.toRealPath() }
            while (!held.add(place)) waitOrFail(until)
            try {
                locked(until).use {
                    gained()
                    return work()
                }
            } finally {
                held.remove(place)
            }
        } finally {
            mine.unlock()
        }
    }

    /** The lock's file, locked until it is closed. */
    private fun locked(until: Long): FileChannel = storage("lock", folder) {
        val channel = FileChannel.open(folder.resolve("lock"), setOf(WRITE, CREATE), OWNER_ONLY)
        try {
            while (channel.tryLock() == null) waitOrFail(until)
        } catch (error: Throwable) {
            channel.close()
            throw error
        }
        channel
    }

    private fun waitOrFail(until: Long) {
        if (System.nanoTime() >= until) throw busy()
        Thread.sleep(LOOK_AGAIN_MS)
    }

    private fun busy() = BusyException("another request is running on the store $folder: wait until it ends")

    private companion object {
        /** The folders that this process holds. */
        val held: MutableSet<Path> = ConcurrentHashMap.newKeySet()
    }
}
