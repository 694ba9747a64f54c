// compiled for avx2, see CMakeLists.txt of the patches

#include "aim-gemm-simd.h"

AIM_SIMD_KERNELS(aim_kernels_avx2, "avx2")
