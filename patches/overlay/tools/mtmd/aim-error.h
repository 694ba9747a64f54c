// errors inside our part of libmtmd: thrown as aim_error, turned into codes at the C edge by aim_guard
#pragma once

#include "aim-mtmd.h"

#include <cstdarg>
#include <functional>
#include <stdexcept>
#include <string>

struct aim_error : std::runtime_error {
    int32_t status;
    aim_error(int32_t status, const std::string & what) : std::runtime_error(what), status(status) {}
};

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
[[noreturn]] void aim_fail(int32_t status, const char * fmt, ...);

// throws AIM_ERR_ARGUMENT for a null pointer
void aim_expect(const void * pointer, const char * name);

// runs f and keeps its message where aim_mtmd_last_error finds it
int32_t aim_guard(const std::function<int32_t()> & f);

// n_threads as given, or all cores
int32_t aim_thread_count(int32_t n_threads);
