// failures in our sources: thrown as aim_error inside, a status and one line of text outside
// both libraries use this. it must not hold a variable: one with this name in each library would be one variable for both
#pragma once

#include "aim-status.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

struct aim_error : std::runtime_error {
    aim_error(aim_status status, const std::string & text) : std::runtime_error(text), status(status) {}

    const aim_status status;
};

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
[[noreturn]] inline void aim_fail(aim_status status, const char * fmt, ...) {
    char line[512];

    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);

    throw aim_error(status, line);
}

inline void aim_expect(const void * pointer, const char * name) {
    if (!pointer) {
        aim_fail(AIM_STATUS_INVALID, "%s is null", name);
    }
}

// how the last call of a thread ended; each library keeps one per thread
struct aim_outcome {
    aim_status  status = AIM_STATUS_OK;
    std::string text;

    void set(aim_status status_new, const char * text_new) noexcept {
        status = status_new;

        try {
            text = text_new;
        } catch (...) { // no memory left for the message itself
            text.clear();
        }
    }
};

// runs f for a function of the C interface. a failure is kept in `last` and returned: as its status where f returns a number,
// as NULL or false where it returns a pointer or a bool
template <typename F>
auto aim_guarded(aim_outcome & last, F f) -> decltype(f()) {
    using result = decltype(f());

    last.set(AIM_STATUS_OK, "");

    try {
        return f();
    } catch (const aim_error & e) {
        last.set(e.status, e.what());
    } catch (const std::bad_alloc &) {
        last.set(AIM_STATUS_NO_MEMORY, "out of memory");
    } catch (const std::exception & e) {
        last.set(AIM_STATUS_FAILED, e.what());
    } catch (...) {
        last.set(AIM_STATUS_FAILED, "unknown C++ exception");
    }

    if constexpr (std::is_void_v<result>) {
        return;
    } else if constexpr (std::is_same_v<result, int32_t> || std::is_same_v<result, int64_t>) {
        return last.status;
    } else {
        return result{};
    }
}
