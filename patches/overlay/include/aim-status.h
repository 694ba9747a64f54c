// what our two C interfaces share, aim-llama.h (libllama) and aim-mtmd.h (libmtmd): how a call ended, and how a caller stops one
#pragma once

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

// functions that can fail return a count or AIM_STATUS_OK, or one of these below zero; those that return a pointer or a bool leave
// it to aim_last_status() and aim_mtmd_last_status()
enum aim_status {
    AIM_STATUS_OK           =  0,
    AIM_STATUS_INVALID      = -1, // an argument that cannot be what was meant
    AIM_STATUS_UNSUPPORTED  = -2, // this model, mmproj or context cannot do that
    AIM_STATUS_CONTEXT_FULL = -3, // a stage has not enough free cells
    AIM_STATUS_CALLBACK     = -4, // the selection callback gave up or returned no valid selection
    AIM_STATUS_ABORTED      = -5, // stopped from outside
    AIM_STATUS_FAILED       = -6, // a backend failed, or llama.cpp threw something else
    AIM_STATUS_NO_MEMORY    = -7, // memory ran out inside the call
};

// true ends the call that is being worked on. asked about every 50 ms on the thread that made the call, while a graph is computed
// (on the CPU) and between graphs
typedef bool (*aim_stop_callback)(void * data);

#ifdef __cplusplus
}
#endif
