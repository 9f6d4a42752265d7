/* Preloaded into a server, makes the disk below one directory slow for it: its calls wait before they are made.
 *
 * SLOW_DISK: the directory, absolute. SLOW_DISK_SYNC_MS, SLOW_DISK_TRANSFER_MS: how long a sync, and each read and write,
 * waits. SLOW_DISK_WAITED: a file of two 64-bit counters, syncs and transfers that waited. Nothing waits without them.
 * A read that is not to wait is told that it would have to. Opening, removing and listing files does not wait.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SYNC, TRANSFER, KINDS };

static char directory[PATH_MAX];
static size_t directory_bytes;
static long delay_ms[KINDS];
static uint64_t *waited;

__attribute__((constructor)) static void prepare(void)
{
    const char *named = getenv("SLOW_DISK"), *counters = getenv("SLOW_DISK_WAITED");
    const char *sync = getenv("SLOW_DISK_SYNC_MS"), *transfer = getenv("SLOW_DISK_TRANSFER_MS");
    if (!named || !counters || !sync || !transfer)
        return;
    int file = open(counters, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return;
    void *shared = mmap(NULL, KINDS * sizeof *waited, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED || strlen(named) + 2 > sizeof directory)
        return;
    delay_ms[SYNC] = atol(sync);
    delay_ms[TRANSFER] = atol(transfer);
    directory_bytes = (size_t)sprintf(directory, "%s/", named);
    waited = shared;
}

/* Sockets and their like are told apart by one cheap call, as a server makes more calls on those. */
static int is_slow(int file)
{
    struct stat about;
    if (!waited || fstat(file, &about) != 0 || !(S_ISREG(about.st_mode) || S_ISDIR(about.st_mode)))
        return 0;
    char link[64], path[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t bytes = readlink(link, path, PATH_MAX);
    if (bytes < 0)
        return 0;
    path[bytes] = '/';
    return (size_t)bytes + 1 >= directory_bytes && memcmp(path, directory, directory_bytes) == 0;
}

static void wait_if_slow(int file, int kind)
{
    if (!is_slow(file))
        return;
    struct timespec delay = {delay_ms[kind] / 1000, delay_ms[kind] % 1000 * 1000000};
    while (nanosleep(&delay, &delay) != 0)
        ;
    __atomic_fetch_add(&waited[kind], 1, __ATOMIC_RELAXED);
}

int fsync(int file)
{
    wait_if_slow(file, SYNC);
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file)
{
    wait_if_slow(file, SYNC);
    return (int)syscall(SYS_fdatasync, file);
}

ssize_t read(int file, void *to, size_t bytes)
{
    wait_if_slow(file, TRANSFER);
    return syscall(SYS_read, file, to, bytes);
}

ssize_t pread(int file, void *to, size_t bytes, off_t offset)
{
    wait_if_slow(file, TRANSFER);
    return syscall(SYS_pread64, file, to, bytes, offset);
}

ssize_t pread64(int file, void *to, size_t bytes, off64_t offset)
{
    return pread(file, to, bytes, offset);
}

ssize_t preadv2(int file, const struct iovec *to, int count, off_t offset, int flags)
{
    if ((flags & RWF_NOWAIT) && is_slow(file)) {
        errno = EAGAIN;
        return -1;
    }
    wait_if_slow(file, TRANSFER);
    return syscall(SYS_preadv2, file, to, count, offset, 0L, flags);
}

ssize_t preadv64v2(int file, const struct iovec *to, int count, off64_t offset, int flags)
{
    return preadv2(file, to, count, offset, flags);
}

ssize_t write(int file, const void *from, size_t bytes)
{
    wait_if_slow(file, TRANSFER);
    return syscall(SYS_write, file, from, bytes);
}

ssize_t pwrite(int file, const void *from, size_t bytes, off_t offset)
{
    wait_if_slow(file, TRANSFER);
    return syscall(SYS_pwrite64, file, from, bytes, offset);
}

ssize_t pwrite64(int file, const void *from, size_t bytes, off64_t offset)
{
    return pwrite(file, from, bytes, offset);
}
