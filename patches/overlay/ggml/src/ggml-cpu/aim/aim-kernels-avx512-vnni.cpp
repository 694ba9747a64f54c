// compiled for avx512-vnni, see CMakeLists.txt of the patches

#define AIM_WITH_VNNI
#include "aim-gemm-simd.h"

AIM_SIMD_KERNELS(aim_kernels_avx512_vnni, "avx512-vnni")
