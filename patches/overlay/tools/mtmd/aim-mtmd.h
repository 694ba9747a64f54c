// what aim-local adds to libmtmd: a plain C interface, called from Python through ctypes
#pragma once

#include "mtmd.h"

#ifdef __cplusplus
extern "C" {
#endif

// the `patch` line of patches/VERSION this library was built from; a stock library lacks the symbol
MTMD_API int32_t aim_mtmd_patch_version(void);

#ifdef __cplusplus
}
#endif
