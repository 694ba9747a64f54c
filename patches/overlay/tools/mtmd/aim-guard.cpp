#include "aim-guard.h"

#include <algorithm>
#include <thread>

static thread_local aim_outcome last;

aim_outcome & aim_mtmd_last() {
    return last;
}

const char * aim_mtmd_last_error(void) {
    return last.text.c_str();
}

int32_t aim_mtmd_last_status(void) {
    return last.status;
}

int32_t aim_guard(const std::function<int32_t()> & f) {
    return aim_guarded(last, f);
}

int32_t aim_checked(int32_t result) {
    if (result < 0) {
        throw aim_error(last.status, last.text);
    }
    return result;
}

int32_t aim_thread_count(int32_t n_threads) {
    return n_threads > 0 ? n_threads : std::max(1, (int32_t) std::thread::hardware_concurrency());
}
