"""How ggml's threads leave a graph that computes, and come back: aim-crew.h by itself, with threads of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEADER = Path(__file__).parents[1] / "patches" / "overlay" / "ggml" / "src" / "ggml-cpu" / "aim-crew.h"
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(
    COMPILER is None or sys.platform == "win32", reason="needs a C compiler and POSIX threads"
)

STUB = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#define GGML_USE_OPENMP
#define GGML_THREADPOOL_N_THREADS_MASK 0xffff
static void ggml_thread_cpu_relax(void) {}
struct ggml_threadpool { atomic_int n_graph, n_barrier, n_barrier_passed, aim_want, aim_join, aim_done; };
#include "aim-crew.h"
"""

# a place that was given before the graph's end, seen after it
GIVEN = r"""
int main(void) {
    struct ggml_threadpool tp = {0};
    int node = -1;
    atomic_store(&tp.n_graph, 2);
    atomic_store(&tp.aim_join, 5);
    atomic_store(&tp.aim_done, 1);
    const bool is_back = aim_crew_park(&tp, 1, &node);
    atomic_store(&tp.n_graph, 1);
    const bool is_lost = aim_crew_park(&tp, 1, &node);
    printf("%d %d %d\n", is_back, node, is_lost);
}
"""

# the second of two threads comes to the barrier behind node 5, where a third one gets its place: that one is soon at
# the next barrier, and has to wait there for both
EARLY = r"""
static struct ggml_threadpool tp;
static atomic_int passed;
static int node = -1;

static void * third(void * arg) {
    aim_crew_park(&tp, 2, &node);
    aim_crew_barrier(&tp, 3, -1);
    atomic_store(&passed, 1);
    return arg;
}

int main(void) {
    const struct timespec nap = { 0, 50000000 };
    pthread_t thread;
    atomic_store(&tp.n_graph, 2);
    atomic_store(&tp.n_barrier, 1);
    atomic_store(&tp.aim_want, 2);
    atomic_store(&tp.aim_join, -1);
    pthread_create(&thread, NULL, third, NULL);
    aim_crew_barrier(&tp, 2, 5);
    nanosleep(&nap, NULL);
    printf("%d %d %d ", aim_crew_n(&tp), atomic_load(&passed), node);
    fflush(stdout);
    atomic_fetch_add(&tp.n_barrier, 1);
    aim_crew_barrier(&tp, 3, -1);
    pthread_join(thread, NULL);
    printf("%d\n", atomic_load(&passed));
}
"""

# two threads with a real-time priority on one core: the first to come to a barrier has to let the other one run
ONE_CORE = r"""
static struct ggml_threadpool tp;

static void * second(void * arg) {
    aim_crew_barrier(&tp, 2, -1);
    return arg;
}

int main(void) {
    const struct sched_param param = { .sched_priority = 1 };
    cpu_set_t set;
    pthread_t thread;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    if (sched_setaffinity(0, sizeof(set), &set) || sched_setscheduler(0, SCHED_FIFO, &param)) {
        printf("not allowed\n");
        return 0;
    }
    alarm(5);
    pthread_create(&thread, NULL, second, NULL); // with the same priority, so it waits for the core
    aim_crew_barrier(&tp, 2, -1);
    pthread_join(thread, NULL);
    printf("both\n");
}
"""

# graphs of 2 to 40 nodes by up to 4 threads that leave and come back as often as they can
# the loop is that of ggml_graph_compute_thread
MANY = r"""
enum { N_THREADS = 4 };
static struct ggml_threadpool tp;
static pthread_barrier_t region;
static int n_graphs, n_nodes;
static atomic_long n_computed[40], n_left;
static int results[2][N_THREADS]; // not atomic, as a node has them: all read what all wrote for the node before

static void read_one(const int * result) {
    int found = *(const volatile int *) result;
    (void) found;
}

static void * work(void * arg) {
    const int ith = (int) (intptr_t) arg;
    for (int g = 0; g < n_graphs; ++g) {
        if (ith == 0) {
            n_nodes = 2 + g % 39;
            for (int i = 0; i < n_nodes; ++i) { atomic_store(&n_computed[i], 0); }
            atomic_store(&tp.n_graph, aim_crew_begin(N_THREADS));
        }
        pthread_barrier_wait(&region);
        if (ith < aim_crew_n(&tp)) {
            int nth = aim_crew_n(&tp);
            pthread_barrier_wait(&region);
            aim_crew_enter(&tp, ith);
            bool is_here = true;
            for (int node = 0; node < n_nodes; ++node) {
                for (int i = 0; node > 0 && i < N_THREADS; ++i) { read_one(&results[(node - 1) % 2][i]); }
                results[node % 2][ith] = node;
                atomic_fetch_add(&n_computed[node], 1000/nth);
                if (node + 1 < n_nodes && !aim_crew_meet(&tp, ith, &nth, &node)) {
                    is_here = false;
                    break;
                }
            }
            if (is_here) {
                aim_crew_end(&tp, ith);
                const int n = aim_crew_n(&tp);
                if (n > 1) { aim_crew_barrier(&tp, n, -1); }
            } else {
                atomic_fetch_add(&n_left, 1);
            }
        } else {
            pthread_barrier_wait(&region);
        }
        pthread_barrier_wait(&region);
        for (int i = 0; ith == 0 && i < n_nodes; ++i) {
            if (atomic_load(&n_computed[i]) < 999) {
                printf("node %d of graph %d was computed by %ld\n", i, g, n_computed[i]);
                exit(1);
            }
        }
    }
    return NULL;
}

int main(int argc, char ** argv) {
    n_graphs = argc > 1 ? atoi(argv[1]) : 1;
    pthread_barrier_init(&region, NULL, N_THREADS);
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; ++i) {
        pthread_create(&threads[i], NULL, work, (void *) (intptr_t) i);
    }
    for (int i = 0; i < N_THREADS; ++i) {
        pthread_join(threads[i], NULL);
    }
    printf("%ld\n", n_left);
}
"""

# as often as possible: every window is a loss, every try succeeds
HURRIED = {"SAMPLE_NS": 1, "WINDOW_NS": 2000, "AGAIN_NS": 2000, "LOST": -1.0, "RETRY_NS": "2000LL",
           "RETRY_MAX": "4000LL", "TRY_NS": 500, "TRY_LOST": "1000000000LL"}  # fmt: skip


def built(
    folder: Path, program: str, constants: dict[str, object], *options: str, before: dict[str, str] | None = None
) -> Path:
    """before: what is done in front of a place of the header."""
    text = HEADER.read_text()
    for place, done in (before or {}).items():
        assert text.count(place) == 1, place
        text = text.replace(place, done + place)
    for name, value in constants.items():
        text, n = re.subn(rf"(#define AIM_CREW_{name}\s+)\S+", rf"\g<1>{value}", text)
        assert n == 1, name
    (folder / "aim-crew.h").write_text(text)
    (folder / "crew.c").write_text(STUB + program)
    assert COMPILER
    command = [COMPILER, "-std=c11", "-O2", "-pthread", "-Wno-unused-function", *options, "crew.c", "-o", "crew"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "crew"


def test_a_place_given_before_the_end_is_taken(tmp_path: Path) -> None:
    """The others wait for it at the last barrier: a thread that went away instead would leave them there for ever."""
    done = subprocess.run([built(tmp_path, GIVEN, {})], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "5", "0"]


def test_threads_leave_and_come_back(tmp_path: Path) -> None:
    """No graph hangs, and each node is computed by all who are there."""
    program = built(tmp_path, MANY, HURRIED)
    done = subprocess.run([program, "100"], capture_output=True, text=True, timeout=100)
    print(f"threads left {done.stdout.strip()} times for the rest of a graph")
    assert done.returncode == 0, done.stdout
    assert int(done.stdout) > 0


def test_a_thread_that_comes_back_waits_where_the_last_one_at_a_barrier_is_slow(tmp_path: Path) -> None:
    """It lost its core behind the word that lets the other go on, which would find the barrier of before."""
    slow = "struct timespec nap = { 0, 50000000 }; nanosleep(&nap, NULL); "
    program = built(tmp_path, EARLY, {}, before={"atomic_store_explicit(&tp->n_barrier, 0": slow})
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["3", "0", "5", "1"]


def test_real_time_threads_on_one_core_let_each_other_run(tmp_path: Path) -> None:
    """SVT-AV1's encoder makes its caller such a thread, and with it all that the caller starts."""
    done = subprocess.run([built(tmp_path, ONE_CORE, {})], capture_output=True, text=True, timeout=60)
    if done.stdout.strip() == "not allowed":
        pytest.skip("this user may have no real-time threads")
    assert done.stdout.strip() == "both"


def test_what_one_thread_computed_is_there_for_the_others(tmp_path: Path) -> None:
    """By the thread sanitizer: a barrier, a place taken again and the end of a graph order what they write and read."""
    try:
        program = built(tmp_path, MANY, HURRIED, "-fsanitize=thread", "-DGGML_TSAN_ENABLED", "-g")
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no thread sanitizer")
    done = subprocess.run([program, "40"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 0
