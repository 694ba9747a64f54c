// what aim-local adds to libllama: a plain C interface, called from Python through ctypes
#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// the `patch` line of patches/VERSION this library was built from; a stock library lacks the symbol
LLAMA_API int32_t aim_llama_patch_version(void);

#ifdef __cplusplus
}
#endif
