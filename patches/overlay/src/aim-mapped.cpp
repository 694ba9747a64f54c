#include "aim-mapped.h"

#include <cstdint>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

void aim_release_mapped(const void * data, size_t size) {
#if defined(__unix__) || defined(__APPLE__)
    const uintptr_t page  = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t) data + page - 1) / page * page;
    const uintptr_t last  = ((uintptr_t) data + size) / page * page;
    if (first < last) {
        // locked pages refuse and stay; that is what was asked for there
        (void) madvise((void *) first, last - first, MADV_DONTNEED);
    }
#else
    // Windows takes mapped pages that nobody reads from a process by itself
    (void) data;
    (void) size;
#endif
}
