// What the thread sanitizer has to know of GCC's OpenMP: only in builds with -DAIM_SANITIZE=thread. The linker puts these
// functions in the way of libgomp's.
//
// libgomp is not compiled with the sanitizer, which so does not see that threads wait for each other where a parallel region
// begins, at its barriers, and where it ends: every graph would be a race with the one before it. This file says so, and is
// itself compiled without the sanitizer, as a region's own variables are handed over before anything is said.

#include <sanitizer/tsan_interface.h>

struct region {
    void (*body)(void *);
    void * data;
    char begin, barrier, end; // addresses that stand for the three places
};

static thread_local region * current;

static void run(void * given) {
    region * const own   = static_cast<region *>(given);
    region * const outer = current;

    current = own;

    __tsan_acquire(&own->begin);
    own->body(own->data);
    __tsan_release(&own->end);

    current = outer;
}

extern "C" {

void __real_GOMP_parallel(void (*body)(void *), void * data, unsigned n_threads, unsigned flags);
void __real_GOMP_barrier();

void __wrap_GOMP_parallel(void (*body)(void *), void * data, unsigned n_threads, unsigned flags) {
    region own = { body, data, 0, 0, 0 };

    __tsan_release(&own.begin);
    __real_GOMP_parallel(run, &own, n_threads, flags);
    __tsan_acquire(&own.end);
}

void __wrap_GOMP_barrier() {
    region * const own = current;

    if (own) {
        __tsan_release(&own->barrier);
    }

    __real_GOMP_barrier();

    if (own) {
        __tsan_acquire(&own->barrier);
    }
}

}
