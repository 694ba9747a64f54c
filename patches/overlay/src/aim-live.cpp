#include "aim-live.h"

#include <mutex>
#include <unordered_map>

// never destroyed: what the program still holds at its end may be freed after this file's own variables
static std::unordered_map<const void *, aim_kind> & objects() {
    static auto * const all = new std::unordered_map<const void *, aim_kind>;

    return *all;
}

static std::mutex & lock() {
    static auto * const own = new std::mutex;

    return *own;
}

void aim_live_add(const void * object, aim_kind kind) {
    const std::lock_guard<std::mutex> guard(lock());

    objects()[object] = kind;
}

void aim_live_remove(const void * object) {
    const std::lock_guard<std::mutex> guard(lock());

    objects().erase(object);
}

bool aim_is_live(const void * object, aim_kind kind) {
    const std::lock_guard<std::mutex> guard(lock());

    const auto it = objects().find(object);

    return it != objects().end() && it->second == kind;
}
