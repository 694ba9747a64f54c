// AMX tile registers: configured when a product begins in a thread, free again when it ends; and loads that GCC cannot
// move.
#pragma once

#if defined(__AMX_INT8__)

#include <immintrin.h>

#include <cstdint>

// GCC's _tile_loadd names no memory as read at all: what is unpacked for it may be stored after it, or never.
#if defined(_tile_loadd_internal)
#undef _tile_loadd
#define _tile_loadd(tile, base, stride)           \
    do {                                          \
        asm volatile("" : : : "memory");          \
        _tile_loadd_internal(tile, base, stride); \
        asm volatile("" : : : "memory");          \
    } while (0)
#endif

struct aim_tile_config {
    uint8_t  palette;
    uint8_t  start_row;
    uint8_t  reserved[14];
    uint16_t colsb[16];
    uint8_t  rows[16];
};

// No "done once" flag: the ABI keeps tiles and their configuration across no call, so other code in the thread
// (PyTorch's oneDNN) may have released them, or put a shape of its own there, with which the same instructions give
// other numbers.
struct aim_tiles {
    aim_tiles() {
        // int8 products of 32 columns, the layout above the kernels of mmq.cpp: two tiles of B, two of A, four of C
        alignas(64) static const aim_tile_config config = {
            1, 0, {}, { 64, 64, 32, 32, 64, 64, 64, 64 }, { 8, 8, 16, 16, 16, 16, 16, 16 }
        };
#if defined(__GNUC__)
        // not _tile_loadconfig: GCC's names 8 of the 64 bytes as read, so what is stored in the others may be dropped
        asm volatile("ldtilecfg %0" : : "m"(config));
#else
        _tile_loadconfig(&config);
#endif
    }

    // the kernel saves 8 KiB more at a task switch as long as tiles are in use; and whoever forgets to configure its
    // own stops, instead of computing with our shape
    ~aim_tiles() { _tile_release(); }

    aim_tiles(const aim_tiles &) = delete;
    aim_tiles & operator=(const aim_tiles &) = delete;
};

#endif
