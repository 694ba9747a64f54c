// the edge of our part of libmtmd: every function of aim-mtmd.h that can fail runs inside aim_guard
#pragma once

#include "aim-error.h"
#include "aim-mtmd.h"

#include <functional>

// how this thread's last call ended
aim_outcome & aim_mtmd_last();

// runs f; what it throws becomes a status, and a line for aim_mtmd_last_error()
int32_t aim_guard(const std::function<int32_t()> & f);

// the result of another function of ours; its error is thrown on
int32_t aim_checked(int32_t result);

// n_threads as given, or all cores
int32_t aim_thread_count(int32_t n_threads);
