#include "aim-llama.h"

int32_t aim_llama_patch_version(void) {
    return AIM_PATCH_VERSION;
}
