/* A disk that fails, or a power switch, for one process: LD_PRELOAD puts these functions before libc's.

   Calls on files below `root` are counted and, with a trace file, logged with their data. At call number `at` that the mask
   chooses the process is killed (before, after, or in the middle of a write) or the call fails; "from" lets all later ones
   fail too, as on a disk that stays full. Armed by clue_arm(), which a test calls through ctypes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OP_CREATE = 'c', OP_WRITE = 'w', OP_TRUNCATE = 't', OP_SYNC = 's', OP_RENAME = 'r', OP_UNLINK = 'u', OP_MKDIR = 'm' };
enum { NOTHING = 0, FAIL = 1, FAIL_FROM = 2, KILL_BEFORE = 3, KILL_AFTER = 4, KILL_WITHIN = 5 };

static char root[PATH_MAX];
static size_t root_length;
static int mode, trace = -1;
static long at, count;
static char mask[16];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void clue_arm(const char *below, int what, long call, const char *which, const char *log) {
    snprintf(root, sizeof root, "%s/", below);
    snprintf(mask, sizeof mask, "%s", which);
    mode = what, at = call, count = 0;
    trace = *log ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
    root_length = strlen(root); /* last: from here on calls are watched */
}

long clue_count(void) { return count; }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether a path lies below the root, or is the root itself; the -shm file is mapped, its calls mean nothing. */
static int below(const char *path) {
    size_t length = strlen(path);
    if (!root_length || length + 1 < root_length || strncmp(path, root, root_length - 1)) return 0;
    if (path[root_length - 1] && path[root_length - 1] != '/') return 0;
    return length < 4 || strcmp(path + length - 4, "-shm");
}

static int path_of(int descriptor, char *path) {
    char link[64];
    if (!root_length || descriptor < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static void put(const void *bytes, size_t size) {
    while (size) {
        ssize_t done = syscall(SYS_write, trace, bytes, size);
        if (done <= 0) die();
        bytes = (const char *)bytes + done, size -= (size_t)done;
    }
}

/* op, length of the path, offset, length of the data; path; data (of a rename: the new path). */
static void log_call(char op, const char *path, uint64_t offset, const void *data, uint64_t size) {
    if (trace < 0) return;
    uint32_t length = (uint32_t)strlen(path);
    put(&op, 1), put(&length, 4), put(&offset, 8), put(&size, 8), put(path, length), put(data, size);
}

/* What is to happen at this call: NOTHING or one of the modes. */
static int turn(char op) {
    if (!mode || !strchr(mask, op)) return NOTHING;
    pthread_mutex_lock(&lock);
    long number = ++count;
    pthread_mutex_unlock(&lock);
    if (mode == FAIL_FROM) return number >= at ? FAIL : NOTHING;
    return number == at ? mode : NOTHING;
}

#define WATCHED(op, error, call, logged)                                   \
    do {                                                                   \
        int now = turn(op);                                                \
        if (now == KILL_BEFORE || now == KILL_WITHIN) die();               \
        if (now == FAIL) return errno = (error), -1;                       \
        __typeof__(call) result = (call);                                  \
        int failed = errno;                                                \
        if (result >= 0) { logged; }                                       \
        if (now == KILL_AFTER) die();                                      \
        errno = failed;                                                    \
        return result;                                                     \
    } while (0)

ssize_t write(int descriptor, const void *data, size_t size) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return syscall(SYS_write, descriptor, data, size);
    if (mode == KILL_WITHIN && strchr(mask, OP_WRITE) && count + 1 == at) syscall(SYS_write, descriptor, data, size / 2);
    struct stat status;
    int appends = fcntl(descriptor, F_GETFL) & O_APPEND;
    fstat(descriptor, &status);
    uint64_t offset = appends ? (uint64_t)status.st_size : (uint64_t)lseek(descriptor, 0, SEEK_CUR);
    WATCHED(OP_WRITE, ENOSPC, (ssize_t)syscall(SYS_write, descriptor, data, size),
            log_call(OP_WRITE, path, offset, data, (uint64_t)result));
}

static ssize_t pwrite_watched(int descriptor, const void *data, size_t size, off_t offset) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return syscall(SYS_pwrite64, descriptor, data, size, offset);
    if (mode == KILL_WITHIN && strchr(mask, OP_WRITE) && count + 1 == at)
        syscall(SYS_pwrite64, descriptor, data, size / 2, offset);
    WATCHED(OP_WRITE, ENOSPC, (ssize_t)syscall(SYS_pwrite64, descriptor, data, size, offset),
            log_call(OP_WRITE, path, (uint64_t)offset, data, (uint64_t)result));
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return pwrite_watched(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    return pwrite_watched(descriptor, data, size, offset);
}

static int truncate_watched(int descriptor, off_t length) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return (int)syscall(SYS_ftruncate, descriptor, length);
    WATCHED(OP_TRUNCATE, ENOSPC, (int)syscall(SYS_ftruncate, descriptor, length),
            log_call(OP_TRUNCATE, path, (uint64_t)length, "", 0));
}

int ftruncate(int descriptor, off_t length) { return truncate_watched(descriptor, length); }
int ftruncate64(int descriptor, off64_t length) { return truncate_watched(descriptor, length); }

static int sync_watched(int descriptor, long number) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return (int)syscall(number, descriptor);
    WATCHED(OP_SYNC, EIO, (int)syscall(number, descriptor), log_call(OP_SYNC, path, 0, "", 0));
}

int fsync(int descriptor) { return sync_watched(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return sync_watched(descriptor, SYS_fdatasync); }

int rename(const char *from, const char *to) {
    if (!below(to)) return REAL(rename)(from, to);
    WATCHED(OP_RENAME, ENOSPC, REAL(rename)(from, to), log_call(OP_RENAME, from, 0, to, strlen(to)));
}

int unlink(const char *path) {
    if (!below(path)) return REAL(unlink)(path);
    WATCHED(OP_UNLINK, EIO, REAL(unlink)(path), log_call(OP_UNLINK, path, 0, "", 0));
}

int mkdir(const char *path, mode_t bits) {
    if (!below(path)) return REAL(mkdir)(path, bits);
    WATCHED(OP_MKDIR, ENOSPC, REAL(mkdir)(path, bits), log_call(OP_MKDIR, path, 0, "", 0));
}

static int open_watched(int folder, const char *path, int flags, mode_t bits) {
    struct stat status;
    int watched = below(path) && flags & (O_CREAT | O_TRUNC);
    int is_new = watched && (flags & O_TRUNC || stat(path, &status));
    if (!is_new) return (int)syscall(SYS_openat, folder, path, flags, bits);
    WATCHED(OP_CREATE, ENOSPC, (int)syscall(SYS_openat, folder, path, flags, bits), log_call(OP_CREATE, path, 0, "", 0));
}

#define OPEN_BITS                                            \
    mode_t bits = 0;                                         \
    if (flags & (O_CREAT | O_TMPFILE)) {                     \
        va_list rest;                                        \
        va_start(rest, flags), bits = va_arg(rest, mode_t), va_end(rest); \
    }

int open(const char *path, int flags, ...) { OPEN_BITS return open_watched(AT_FDCWD, path, flags, bits); }
int open64(const char *path, int flags, ...) { OPEN_BITS return open_watched(AT_FDCWD, path, flags, bits); }
int openat(int folder, const char *path, int flags, ...) { OPEN_BITS return open_watched(folder, path, flags, bits); }
int openat64(int folder, const char *path, int flags, ...) { OPEN_BITS return open_watched(folder, path, flags, bits); }
