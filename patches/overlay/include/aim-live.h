// which models and contexts are alive: a pointer to one that was freed, or that never was one, is an error and not a crash
// kept in libllama for both libraries. says nothing about two threads, one of which frees what the other one uses
#pragma once

#include "aim-error.h"

#include "llama.h"

enum class aim_kind { MODEL, CONTEXT, VISION };

LLAMA_API void aim_live_add(const void * object, aim_kind kind);
LLAMA_API void aim_live_remove(const void * object);
LLAMA_API bool aim_is_live(const void * object, aim_kind kind);

// a member of what is counted
class aim_live {
public:
    aim_live(const void * object, aim_kind kind) : object(object) {
        aim_live_add(object, kind);
    }

    ~aim_live() {
        aim_live_remove(object);
    }

    aim_live(const aim_live &) = delete;
    aim_live & operator=(const aim_live &) = delete;

private:
    const void * const object;
};

inline void aim_expect_live(const void * object, aim_kind kind, const char * name) {
    aim_expect(object, name);

    if (!aim_is_live(object, kind)) {
        aim_fail(AIM_STATUS_INVALID, "the %s was freed, or is none", name);
    }
}
