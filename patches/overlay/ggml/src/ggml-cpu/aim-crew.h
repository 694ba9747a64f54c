// How ggml's OpenMP threads wait for each other, and how many of them compute while other programs want their cores.
//
// Every node of a graph ends in a barrier, so one thread that has lost its core for some milliseconds stops all of them,
// hundreds of times a token: a competitor on one of two cores made decoding up to 80 times slower. So
// - a barrier spins and never sleeps; OpenMP's does after a while, and a thread that wakes may find its core taken;
// - each thread compares the time that passed with the processor time it got, at most once a millisecond. Where more than a third of a
//   core was lost over 40 ms, the last threads leave: in the middle of a graph, at a barrier. The core that is free then does more alone
//   than two that wait for each other. A thread that left tries its core now and then, without anybody waiting for it, and comes back in
//   the middle of a graph when it gets all of it. Graphs that begin meanwhile begin with fewer threads; all are tried after a while
//   that grows from 30 ms to 1 s as long as it does not help.
//
// Included in ggml-cpu.c, behind struct ggml_threadpool. Without OpenMP, and on Windows, everything is as upstream has it.
#pragma once

#if defined(GGML_USE_OPENMP) && !defined(_WIN32)

#include <sched.h>
#include <time.h>

#define AIM_CREW_SPINS      (1 << 22)   // of one wait, some 0.1 s
#define AIM_CREW_SAMPLE_NS  1000000     // a thread reads its processor time no more often
#define AIM_CREW_WINDOW_NS  40000000    // a decision
#define AIM_CREW_AGAIN_NS   15000000    // the next one, after all threads were tried again
#define AIM_CREW_LOST       0.35        // of a core, in a window
#define AIM_CREW_RETRY_NS   30000000LL  // first retry with all threads
#define AIM_CREW_RETRY_MAX  1000000000LL
#define AIM_CREW_TRY_NS     10000000    // a thread alone tries its core for so long: more than a competitor waits for its turn
#define AIM_CREW_TRY_LOST   1000000     // and may lose so much

// of all graphs in the process: what one of them learns about the machine is true for the next
static struct {
    atomic_llong start; // of the last graph
    atomic_llong wall;  // of the window, of the first thread
    atomic_llong lost;  // of the window, of all threads
    atomic_int   limit; // threads, 0 is no limit
    atomic_llong until; // the limit's end
    atomic_llong retry; // from the limit's begin to its end
} aim_crew;

// when this thread last looked
static _Thread_local long long aim_crew_wall;
static _Thread_local long long aim_crew_cpu;

static long long aim_crew_now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);

    return t.tv_sec*1000000000LL + t.tv_nsec;
}

// one turn of a wait. a thread with a real-time priority has its core until it gives it away, and who it waits for may need that one;
// the encoder of SVT-AV1 gives its caller such a priority
static void aim_crew_spin(int * n_spins) {
    if (*n_spins < AIM_CREW_SPINS) {
        ++*n_spins;
        ggml_thread_cpu_relax();
    } else {
        sched_yield();
    }
}

// threads for a graph that may have n
static int aim_crew_begin(int n) {
    const long long now   = aim_crew_now(CLOCK_MONOTONIC);
    const int       limit = atomic_load_explicit(&aim_crew.limit, memory_order_relaxed);

    atomic_store_explicit(&aim_crew.start, now, memory_order_relaxed);

    if (limit > 0 && now >= atomic_load_explicit(&aim_crew.until, memory_order_relaxed)) {
        atomic_store_explicit(&aim_crew.limit, 0, memory_order_relaxed);
        return n;
    }

    return limit > 0 && limit < n ? limit : n;
}

// a thread begins its part of a graph: it had no processor time since the graph began
static void aim_crew_enter(struct ggml_threadpool * tp, int ith) {
    if (ith == 0) { // nobody looks before the first barrier
        atomic_store_explicit(&tp->aim_want, 0, memory_order_relaxed);
        atomic_store_explicit(&tp->aim_done, 0, memory_order_relaxed);
        atomic_store_explicit(&tp->aim_join, -1, memory_order_relaxed);
    }

    aim_crew_wall = atomic_load_explicit(&aim_crew.start, memory_order_relaxed);
    aim_crew_cpu  = aim_crew_now(CLOCK_THREAD_CPUTIME_ID);
}

// the first thread has no node left
static void aim_crew_end(struct ggml_threadpool * tp, int ith) {
    if (ith == 0) {
        atomic_store_explicit(&tp->aim_done, 1, memory_order_release);
    }
}

static int aim_crew_n(struct ggml_threadpool * tp) {
    return atomic_load_explicit(&tp->n_graph, memory_order_acquire) & GGML_THREADPOOL_N_THREADS_MASK;
}

static void aim_crew_sample(int ith) {
    const long long wall = aim_crew_now(CLOCK_MONOTONIC);
    const long long past = wall - aim_crew_wall;

    if (past < AIM_CREW_SAMPLE_NS) {
        return;
    }

    const long long cpu  = aim_crew_now(CLOCK_THREAD_CPUTIME_ID);
    const long long lost = past - (cpu - aim_crew_cpu);

    if (lost > 0) {
        atomic_fetch_add_explicit(&aim_crew.lost, lost, memory_order_relaxed);
    }

    if (ith == 0) {
        atomic_fetch_add_explicit(&aim_crew.wall, past, memory_order_relaxed);
    }

    aim_crew_wall = wall;
    aim_crew_cpu  = cpu;
}

// how many of n threads go on; asked by one thread, while the others wait
static int aim_crew_decide(int n) {
    const long long wall  = atomic_load_explicit(&aim_crew.wall,  memory_order_relaxed);
    const long long tried = atomic_load_explicit(&aim_crew.retry, memory_order_relaxed);

    if (wall < (tried > 0 ? AIM_CREW_AGAIN_NS : AIM_CREW_WINDOW_NS)) {
        return n;
    }

    const double lost = (double) atomic_load_explicit(&aim_crew.lost, memory_order_relaxed)/wall;

    atomic_store_explicit(&aim_crew.wall, 0, memory_order_relaxed);
    atomic_store_explicit(&aim_crew.lost, 0, memory_order_relaxed);

    if (lost < AIM_CREW_LOST) {
        if (atomic_load_explicit(&aim_crew.limit, memory_order_relaxed) == 0) {
            atomic_store_explicit(&aim_crew.retry, 0, memory_order_relaxed);
        }
        return n;
    }

    const int n_less = lost < 1.5 ? 1 : (int) (lost + 0.5);
    const int n_left = n - n_less > 1 ? n - n_less : 1;

    const long long retry = tried == 0 ? AIM_CREW_RETRY_NS : 2*tried < AIM_CREW_RETRY_MAX ? 2*tried : AIM_CREW_RETRY_MAX;

    atomic_store_explicit(&aim_crew.retry, retry, memory_order_relaxed);
    atomic_store_explicit(&aim_crew.until, aim_crew_now(CLOCK_MONOTONIC) + retry, memory_order_relaxed);
    atomic_store_explicit(&aim_crew.limit, n_left, memory_order_relaxed);

    return n_left;
}

// how many threads go on after n: a parked one that tried its core takes its place again, which aim_crew_give tells it; as
// aim_crew_decide
static int aim_crew_join(struct ggml_threadpool * tp, int n) {
    if (atomic_load_explicit(&tp->aim_want, memory_order_relaxed) != n) {
        return n;
    }

    atomic_store_explicit(&tp->aim_want, 0, memory_order_relaxed);
    atomic_store_explicit(&aim_crew.limit, 0, memory_order_relaxed);

    return n + 1;
}

// lets a parked thread go on behind node node_n. only once the barrier there is ready for its next use: that thread may be at the next
// one before any other, and what it counts there must not be lost
static void aim_crew_give(struct ggml_threadpool * tp, int node_n) {
    atomic_store_explicit(&tp->aim_join, node_n, memory_order_release);
}

// node_n: the node it is behind, the only place where the number of threads changes; -1 inside a node
static void aim_crew_barrier(struct ggml_threadpool * tp, int n_threads, int node_n) {
    const int n_passed = atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed);

    if (atomic_fetch_add_explicit(&tp->n_barrier, 1, memory_order_seq_cst) == n_threads - 1) {
        const int n_next = node_n >= 0 ? aim_crew_decide(aim_crew_join(tp, n_threads)) : n_threads;

        if (node_n >= 0) {
            atomic_store_explicit(&tp->n_graph, n_next, memory_order_release);
        }

        atomic_store_explicit(&tp->n_barrier, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&tp->n_barrier_passed, 1, memory_order_seq_cst);

        if (n_next > n_threads) {
            aim_crew_give(tp, node_n);
        }
        return;
    }

    // no sleep: to wake up beside a competitor takes milliseconds. no yield: it would get its next milliseconds from us
    for (int n_spins = 0; atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed) == n_passed;) {
        aim_crew_spin(&n_spins);
    }

#ifdef GGML_TSAN_ENABLED
    atomic_fetch_add_explicit(&tp->n_barrier_passed, 0, memory_order_seq_cst); // fences are not known there
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

// whether this thread gets its core for itself; false as well when the graph ends meanwhile
static bool aim_crew_try(struct ggml_threadpool * tp) {
    const long long wall = aim_crew_now(CLOCK_MONOTONIC);
    const long long cpu  = aim_crew_now(CLOCK_THREAD_CPUTIME_ID);

    long long past = 0;

    while (past < AIM_CREW_TRY_NS) {
        if (atomic_load_explicit(&tp->aim_done, memory_order_relaxed)) {
            return false;
        }

        for (int i = 0; i < 100; ++i) {
            ggml_thread_cpu_relax();
        }

        past = aim_crew_now(CLOCK_MONOTONIC) - wall;
    }

    return past - (aim_crew_now(CLOCK_THREAD_CPUTIME_ID) - cpu) < AIM_CREW_TRY_LOST;
}

// a thread that left waits for the graph's end, or for its place: true, and the node before the one where it is back
static bool aim_crew_park(struct ggml_threadpool * tp, int ith, int * node_n) {
    const struct timespec nap = { 0, 1000000 };

    long long pause = AIM_CREW_RETRY_NS;
    long long until = aim_crew_now(CLOCK_MONOTONIC) + pause;

    for (;;) {
        // in this order: a place that was given before the end is taken, since the others wait for it at the last barrier
        const bool is_done = atomic_load_explicit(&tp->aim_done, memory_order_acquire);
        const int  n       = aim_crew_n(tp);

        if (n > ith) {
            for (int n_spins = 0; (*node_n = atomic_load_explicit(&tp->aim_join, memory_order_acquire)) < 0;) {
                aim_crew_spin(&n_spins);
            }
            atomic_store_explicit(&tp->aim_join, -1, memory_order_relaxed); // the next place is given behind a barrier with this thread

            aim_crew_wall = aim_crew_now(CLOCK_MONOTONIC);
            aim_crew_cpu  = aim_crew_now(CLOCK_THREAD_CPUTIME_ID);

            return true;
        }

        if (is_done) {
            return false;
        }

        // places are filled in their order
        if (n == ith && aim_crew_now(CLOCK_MONOTONIC) >= until) {
            if (aim_crew_try(tp)) {
                atomic_store_explicit(&tp->aim_want, ith, memory_order_relaxed);

                // asked once: what is asked after the place was given would give the next one while it is not waited for
                for (int n_spins = 0; aim_crew_n(tp) <= ith && !atomic_load_explicit(&tp->aim_done, memory_order_relaxed);) {
                    aim_crew_spin(&n_spins);
                }
                continue;
            }

            pause = pause < AIM_CREW_RETRY_MAX/2 ? 2*pause : AIM_CREW_RETRY_MAX;
            until = aim_crew_now(CLOCK_MONOTONIC) + pause;
        }

        nanosleep(&nap, NULL);
    }
}

// the barrier behind node node_n: how many threads go on with the next. false: the graph has ended without this one
static bool aim_crew_meet(struct ggml_threadpool * tp, int ith, int * nth, int * node_n) {
    const int n = aim_crew_n(tp);

    if (n > 1) {
        aim_crew_sample(ith);
        aim_crew_barrier(tp, n, *node_n);
    } else {
        const int n_next = aim_crew_join(tp, n);

        atomic_store_explicit(&tp->n_graph, n_next, memory_order_release);

        if (n_next > n) {
            aim_crew_give(tp, *node_n);
        }
    }

    if (ith >= aim_crew_n(tp) && !aim_crew_park(tp, ith, node_n)) {
        return false;
    }

    *nth = aim_crew_n(tp);

    return true;
}

#else

static int aim_crew_begin(int n) {
    return n;
}

static void aim_crew_enter(struct ggml_threadpool * tp, int ith) {
    (void) tp; (void) ith;
}

static void aim_crew_end(struct ggml_threadpool * tp, int ith) {
    (void) tp; (void) ith;
}

#ifdef GGML_USE_OPENMP
static void aim_crew_barrier(struct ggml_threadpool * tp, int n_threads, int node_n) {
    (void) tp; (void) n_threads; (void) node_n;
    #pragma omp barrier
}
#endif

static bool aim_crew_meet(struct ggml_threadpool * tp, int ith, int * nth, int * node_n) {
    (void) ith; (void) nth; (void) node_n;
    ggml_barrier(tp);

    return true;
}

#endif
