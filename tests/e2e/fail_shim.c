/* Stands between a process and the C library: one call of a kind, on a path that holds a text, fails with an errno.

   cc -shared -fPIC -O1 fail_shim.c -o fail_shim.so -ldl; LD_PRELOAD=./fail_shim.so program
   The program arms it by fail_arm; see failing_disk.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char kind[32], below[4096];
static long wanted = -1, count = 0, hit = 0;
static int number = 0, sticky = 0;

/* The n-th call of `what` on a path that holds `where` fails with `error`; with `all`, every later one, too. */
void fail_arm(const char *what, const char *where, long n, int error, int all)
{
    snprintf(kind, sizeof kind, "%s", what);
    snprintf(below, sizeof below, "%s", where);
    wanted = n, number = error, sticky = all, count = hit = 0;
}

long fail_count(void) { return count; }
long fail_hit(void) { return hit; }

static int fails(const char *what, const char *path)
{
    if (!kind[0] || strcmp(kind, what) || !path || !strstr(path, below))
        return 0;
    long c = __sync_add_and_fetch(&count, 1);
    if (wanted < 1 || !(c == wanted || (sticky && c > wanted)))
        return 0;
    hit = 1;
    errno = number;
    return 1;
}

static int fails_on(const char *what, int descriptor)
{
    char link[64], path[4096];
    if (!kind[0] || strcmp(kind, what))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(what, path);
}

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real)                                                                                                         \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    return fails_on("write", fd) ? -1 : real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return fails_on("pwrite", fd) ? -1 : real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }

ssize_t read(int fd, void *data, size_t size)
{
    REAL(ssize_t, "read", int, void *, size_t);
    return fails_on("read", fd) ? -1 : real(fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t at)
{
    REAL(ssize_t, "pread", int, void *, size_t, off_t);
    return fails_on("pread", fd) ? -1 : real(fd, data, size, at);
}

ssize_t pread64(int fd, void *data, size_t size, off_t at) { return pread(fd, data, size, at); }

int fsync(int fd)
{
    REAL(int, "fsync", int);
    return fails_on("fsync", fd) ? -1 : real(fd);
}

int fdatasync(int fd)
{
    REAL(int, "fdatasync", int);
    return fails_on("fsync", fd) ? -1 : real(fd);
}

int ftruncate(int fd, off_t size)
{
    REAL(int, "ftruncate", int, off_t);
    return fails_on("ftruncate", fd) ? -1 : real(fd, size);
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int rename(const char *old, const char *new)
{
    REAL(int, "rename", const char *, const char *);
    return fails("rename", old) ? -1 : real(old, new);
}

int unlink(const char *path)
{
    REAL(int, "unlink", const char *);
    return fails("unlink", path) ? -1 : real(path);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(int, "mkdir", const char *, mode_t);
    return fails("mkdir", path) ? -1 : real(path, mode);
}

int open(const char *path, int flags, ...)
{
    REAL(int, "open", const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return fails("open", path) ? -1 : real(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    REAL(int, "open64", const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return fails("open", path) ? -1 : real(path, flags, mode);
}

int stat(const char *path, struct stat *found)
{
    REAL(int, "stat", const char *, struct stat *);
    return fails("stat", path) ? -1 : real(path, found);
}

int lstat(const char *path, struct stat *found)
{
    REAL(int, "lstat", const char *, struct stat *);
    return fails("stat", path) ? -1 : real(path, found);
}
