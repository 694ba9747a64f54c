#include "aim-mtmd.h"

int32_t aim_mtmd_patch_version(void) {
    return AIM_PATCH_VERSION;
}
