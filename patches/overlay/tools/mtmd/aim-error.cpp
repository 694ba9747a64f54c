#include "aim-error.h"

#include <algorithm>
#include <cstdio>
#include <new>
#include <thread>

static thread_local std::string last_error;

const char * aim_mtmd_last_error(void) {
    return last_error.c_str();
}

void aim_fail(int32_t status, const char * fmt, ...) {
    char line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    throw aim_error(status, line);
}

void aim_expect(const void * pointer, const char * name) {
    if (pointer == nullptr) {
        aim_fail(AIM_ERR_ARGUMENT, "%s is null", name);
    }
}

static int32_t remember(int32_t status, const char * what) {
    try {
        last_error = what;
    } catch (...) { // no memory left for the message itself
        last_error.clear();
    }
    return status;
}

int32_t aim_guard(const std::function<int32_t()> & f) {
    try {
        return f();
    } catch (const aim_error & e) {
        return remember(e.status, e.what());
    } catch (const std::bad_alloc &) {
        return remember(AIM_ERR_RUNTIME, "out of memory");
    } catch (const std::exception & e) {
        return remember(AIM_ERR_RUNTIME, e.what());
    } catch (...) {
        return remember(AIM_ERR_RUNTIME, "unknown C++ exception");
    }
}

int32_t aim_thread_count(int32_t n_threads) {
    return n_threads > 0 ? n_threads : std::max(1, (int32_t) std::thread::hardware_concurrency());
}
