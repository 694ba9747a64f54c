// upstream's functions for callers that cannot catch: through Python's ctypes, a C++ exception ends the process
// each library has a table of those that may throw; whatever they throw becomes a status and one line of text. knows no function
#pragma once

#include "aim-error.h"

#include <cstddef>

// F, throwing nothing. LAST: where the outcome is kept. a failed call returns what aim_guarded returns
template <aim_outcome & (*LAST)(), auto F, typename T = decltype(F)>
struct aim_edge;

template <aim_outcome & (*LAST)(), auto F, typename R, typename... A>
struct aim_edge<LAST, F, R (*)(A...)> {
    static R call(A... a) {
        return aim_guarded(LAST(), [&]() -> R { return F(a...); });
    }
};

struct aim_edge_call {
    const char * name;
    void       * call;
};

// the i-th entry of a table: its name, and the function in `call`; NULL behind the last one
template <size_t N>
const char * aim_edge_find(const aim_edge_call (&table)[N], int32_t i, void ** call) {
    if (i < 0 || size_t(i) >= N || !call) {
        return nullptr;
    }

    *call = table[i].call;

    return table[i].name;
}

// LAST is a function of the file that has the table
#define AIM_EDGE_AS(name, function) { name, reinterpret_cast<void *>(&aim_edge<LAST, function>::call) }
#define AIM_EDGE(function)          AIM_EDGE_AS(#function, function)
