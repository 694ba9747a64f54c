// fails the n-th call of one function of the C library, in this process: what a full disk, a bad disk, missing rights
// and missing memory do. Preloaded; tests/fuzz/faults.py arms it from inside, or AIM_FAULT=NAME:N:ERRNO from the start
//
//   cc -shared -fPIC -O1 -o faults.so faults.c -ldl
//
// what is counted: open (and openat, fopen), write (and pwrite, writev, fwrite), fsync (and fdatasync), rename,
// mmap of files, and malloc (all that allocate) of SMALLEST bytes and more. errno 0: a short write, half of what was given

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, FSYNC, RENAME, MMAP, MALLOC, N_NAMES };
static const char * const NAMES[N_NAMES] = { "open", "write", "fsync", "rename", "mmap", "malloc" };
#define SMALLEST 16384

extern void * __libc_malloc(size_t);
extern void * __libc_calloc(size_t, size_t);
extern void * __libc_realloc(void *, size_t);
extern void * __libc_memalign(size_t, size_t);

static atomic_int  armed = -1; // which function
static atomic_long left;       // calls up to the one that fails
static atomic_long seen;       // calls since it was armed
static int         error;      // of the one that fails

// errno to fail with, -1 where the call is to go on
static int fails(int name) {
    if (atomic_load(&armed) != name) {
        return -1;
    }
    atomic_fetch_add(&seen, 1);
    return atomic_fetch_sub(&left, 1) == 1 ? error : -1;
}

// n 0: only counts
int aim_fault_arm(const char * name, long n, int number) {
    atomic_store(&armed, -1);
    for (int i = 0; i < N_NAMES; i++) {
        if (!strcmp(name, NAMES[i])) {
            error = number;
            atomic_store(&seen, 0);
            atomic_store(&left, n);
            atomic_store(&armed, i);
            return 0;
        }
    }
    return -1;
}

// how many calls there were; nothing fails any more
long aim_fault_disarm(void) {
    atomic_store(&armed, -1);
    return atomic_load(&seen);
}

__attribute__((constructor)) static void from_environment(void) {
    char   name[16];
    long   n;
    int    number;
    char * text = getenv("AIM_FAULT");
    if (text && sscanf(text, "%15[a-z]:%ld:%d", name, &n, &number) == 3) {
        aim_fault_arm(name, n, number);
    }
}

#define NEXT(name, type, ...)                          \
    static type (*next)(__VA_ARGS__);                  \
    if (!next) {                                       \
        next = (type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, #name); \
    }

// fails with `value`, or goes on
#define OR_FAIL(name, value)          \
    do {                              \
        const int number = fails(name); \
        if (number > 0) {             \
            errno = number;           \
            return value;             \
        }                             \
    } while (0)

#define OPENS(name)                                        \
    int name(const char * path, int flags, ...) {          \
        NEXT(name, int, const char *, int, ...)            \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                      \
        OR_FAIL(OPEN, -1);                                 \
        return next(path, flags, mode);                    \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                       \
    int name(int folder, const char * path, int flags, ...) { \
        NEXT(name, int, int, const char *, int, ...)         \
        va_list rest;                                        \
        va_start(rest, flags);                               \
        const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                        \
        OR_FAIL(OPEN, -1);                                   \
        return next(folder, path, flags, mode);              \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define OPENS_STREAM(name)                                \
    FILE * name(const char * path, const char * mode) {   \
        NEXT(name, FILE *, const char *, const char *)    \
        OR_FAIL(OPEN, NULL);                              \
        return next(path, mode);                          \
    }
OPENS_STREAM(fopen)
OPENS_STREAM(fopen64)

ssize_t write(int fd, const void * data, size_t n) {
    NEXT(write, ssize_t, int, const void *, size_t)
    const int number = fd > 2 ? fails(WRITE) : -1;
    if (number > 0) {
        errno = number;
        return -1;
    }
    return next(fd, data, number == 0 && n > 1 ? n / 2 : n);
}

#define WRITES_AT(name, offset_type)                                      \
    ssize_t name(int fd, const void * data, size_t n, offset_type at) {   \
        NEXT(name, ssize_t, int, const void *, size_t, offset_type)       \
        const int number = fails(WRITE);                                  \
        if (number > 0) {                                                 \
            errno = number;                                               \
            return -1;                                                    \
        }                                                                 \
        return next(fd, data, number == 0 && n > 1 ? n / 2 : n, at);      \
    }
WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec * parts, int n) {
    NEXT(writev, ssize_t, int, const struct iovec *, int)
    OR_FAIL(WRITE, -1);
    return next(fd, parts, n);
}

size_t fwrite(const void * data, size_t size, size_t n, FILE * file) {
    NEXT(fwrite, size_t, const void *, size_t, size_t, FILE *)
    const int number = file != stdout && file != stderr ? fails(WRITE) : -1;
    if (number < 0) {
        return next(data, size, n, file);
    }
    errno = number ? number : ENOSPC; // a stream goes on by itself after a short write
    return next(data, size, n / 2, file);
}

#define SYNCS(name)                 \
    int name(int fd) {              \
        NEXT(name, int, int)        \
        OR_FAIL(FSYNC, -1);         \
        return next(fd);            \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int rename(const char * from, const char * to) {
    NEXT(rename, int, const char *, const char *)
    OR_FAIL(RENAME, -1);
    return next(from, to);
}

int renameat(int a, const char * from, int b, const char * to) {
    NEXT(renameat, int, int, const char *, int, const char *)
    OR_FAIL(RENAME, -1);
    return next(a, from, b, to);
}

#define MAPS(name, offset_type)                                                              \
    void * name(void * at, size_t n, int rights, int flags, int fd, offset_type offset) {    \
        NEXT(name, void *, void *, size_t, int, int, int, offset_type)                       \
        if (fd >= 0) { /* of memory, malloc is asked */                                       \
            OR_FAIL(MMAP, MAP_FAILED);                                                       \
        }                                                                                    \
        return next(at, n, rights, flags, fd, offset);                                       \
    }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

static int no_memory(size_t n) {
    if (n < SMALLEST || fails(MALLOC) < 0) {
        return 0;
    }
    errno = ENOMEM;
    return 1;
}

void * malloc(size_t n) {
    return no_memory(n) ? NULL : __libc_malloc(n);
}

void * calloc(size_t n, size_t size) {
    return size && n >= SMALLEST / size && no_memory(n * size) ? NULL : __libc_calloc(n, size);
}

void * realloc(void * data, size_t n) {
    return no_memory(n) ? NULL : __libc_realloc(data, n);
}

void * memalign(size_t border, size_t n) {
    return no_memory(n) ? NULL : __libc_memalign(border, n);
}

void * aligned_alloc(size_t border, size_t n) {
    return memalign(border, n);
}

int posix_memalign(void ** found, size_t border, size_t n) {
    if (no_memory(n)) {
        return ENOMEM;
    }
    void * data = __libc_memalign(border, n);
    if (!data && n) {
        return ENOMEM;
    }
    *found = data;
    return 0;
}
