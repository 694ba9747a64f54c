// Matrix products of prefill on packed operands. What one thread computes; nothing here knows ggml.
//
// C[m][n] = sum_k A[m][k] B[n][k]. Both operands are packed: A when it is needed, B (mostly weights) once. Packed elements
// stand in groups of 4 bytes along k: 4 x int8, 2 x int16 or 2 x bf16, and a row has a multiple of 64 bytes (a chunk).
//   A: [m/16][chunk][16 rows][64 bytes] (AMX tiles), or [m][chunk][64 bytes] (everything else)
//   B: [n/16][group][16 columns][4 bytes]: a tile of AMX and a vector of AVX-512 at once
#pragma once

#include <cstddef>
#include <cstdint>

enum aim_pack : int32_t {
    AIM_PACK_I8,   // scale per row and per column; k is rotated in blocks of 64 by a Hadamard matrix, so that no single
                   // large column takes the range of all others (QuaRot, arXiv 2404.00456)
    AIM_PACK_I16,  // scale per row and per column, such that no sum can leave 32 bits (Cauchy-Schwarz)
    AIM_PACK_BF16, // no scales
    AIM_N_PACKS,
};

enum aim_act : int32_t { AIM_ACT_NONE, AIM_ACT_GELU, AIM_ACT_GELU_ERF, AIM_ACT_GELU_QUICK, AIM_ACT_SILU, AIM_ACT_RELU };

// what becomes of C; null pointers are left out: dst = residual + gamma * act(C + bias)
struct aim_out {
    float *       dst;             // [m][n]
    size_t        dst_stride;      // floats from row to row
    const float * bias;            // [n]
    const float * gamma;           // [n]
    const float * residual;        // [m][n], may be dst
    size_t        residual_stride;
    aim_act       act;
    int32_t       n;               // columns that exist; the last block may have fewer than 16
    bool          has_room;        // whether rows up to the next 16 and columns up to the next 16 may be written as well
};

struct aim_operand {
    const uint8_t * data;
    size_t          row_bytes; // of all k; a product may take the first part of them only
    const float *   scales; // of a packed element, per row of A or column of B; NaN where it held an infinity or NaN; with bf16
                            // none for B, and for A only where rows are to be scaled
    const int32_t * sums;   // of the packed elements of a column of B; with int8 only
};

// rows of floats or of half floats
struct aim_source {
    const char * data;
    size_t       stride; // bytes from row to row
    bool         half;
};

// how a language model's weight lies in memory: 16 columns of the product are 16 of its rows
enum aim_store : int32_t {
    AIM_STORE_ROWS, // row by row, as in the file
    AIM_STORE_X8,   // blocks of 8 rows side by side: ggml's repacked Q4_0 and Q4_K
    AIM_STORE_AMX,  // blocks of 16 rows: ggml's AMX buffer
};

struct aim_stored {
    aim_store       store;
    int32_t         type;        // enum ggml_type
    const uint8_t * data;
    int64_t         k;           // of a whole row
    int64_t         block_k;     // of a block
    int64_t         block_bytes;
    void            (*to_float)(const void * blocks, float * out, int64_t k); // rows only

    // the block of a column, or of the columns that are in it, at k0
    const uint8_t * at(int64_t column, int64_t k0) const {
        const int64_t n = store == AIM_STORE_AMX ? 16 : store == AIM_STORE_X8 ? 8 : 1;
        return data + (column/n*(k/block_k) + k0/block_k)*block_bytes;
    }
};

// ggml.h: enum ggml_type; numbers of the file format
constexpr int32_t AIM_F32 = 0, AIM_F16 = 1, AIM_Q4_0 = 2, AIM_Q8_0 = 8, AIM_Q4_K = 12, AIM_Q6_K = 14;

// ggml's own products of the others are nearer than ours
constexpr bool aim_worth_unpacking(int32_t type) { return type != AIM_F32 && type != AIM_F16; }

constexpr int64_t AIM_M_STEP = 512; // rows of A that are multiplied by one unpacked part

struct aim_kernels {
    const char * name;
    bool         tiled;  // layout of A
    aim_pack     wide;   // the 16-bit type that is computed fastest
    bool         has_i8; // int8 is faster than that
    // k values into chunks that are chunk_stride bytes apart; work: k_padded floats; scale may be null with bf16
    void  (*pack_row)(aim_pack type, aim_source src, int64_t k, int64_t k_padded, uint8_t * dst, size_t chunk_stride, float * scale, float * work);
    // the same for a row that becomes a column of B, beside 15 others: see aim_interleave
    void  (*pack_column)(aim_pack type, aim_source src, int64_t k, int64_t k_padded, uint8_t * dst, float * scale, int32_t * sum, float * work);
    // up to 16 columns of B that stand side by side in k rows; 16-bit types only
    void  (*pack_columns)(aim_pack type, aim_source src, int64_t k, int64_t k_padded, int n, uint8_t * dst, float * scales);
    // rows [m0, m1) by blocks of 16 columns [b0, b1); the first k_bytes of each
    void  (*gemm)(aim_pack type, aim_operand a, aim_operand b, size_t k_bytes, int64_t m0, int64_t m1, int64_t b0, int64_t b1, const aim_out * out);
    // The same in parts of k_part, for B that is unpacked part by part, in the wide type. int16 has a scale for each column and 32 k,
    // [k/32][16], such that no sum over 32 k can leave 32 bits.
    int64_t k_part;
    bool  (*can_unpack)(aim_store store, int32_t ggml_type);
    // 16 columns by k values from k0 on; work: 9*k floats
    void  (*unpack)(const aim_stored & w, int64_t column, int64_t k0, int64_t k, uint8_t * dst, float * scales, float * work);
    // sums += for [0, m) rows, at most AIM_M_STEP, by up to two column blocks; sums: 64*AIM_M_STEP bytes of each, in an order of their own
    void  (*accumulate)(aim_operand a, aim_operand b, size_t k_bytes, int64_t m, int64_t n_blocks, uint8_t * sums, bool first);
    void  (*finish)(const uint8_t * sums, const float * a_scales, int64_t m, int64_t block, int64_t n_blocks, const aim_out * out);
    // exp(scale * row + mask - the largest) packed as a row of A, k_padded long; returns what its sum is to be scaled by. mask: half floats or null
    float (*softmax)(aim_pack type, float * row, const uint16_t * mask, float scale, int64_t k, int64_t k_padded, uint8_t * dst, size_t chunk_stride,
                     float * work);
    // y = (x - mean) / sqrt(var + eps) * gamma + beta; rms: without mean
    void  (*norm)(const float * x, int64_t n, float eps, bool rms, const float * gamma, const float * beta, float * y);
    void  (*begin)(void); // of a thread's part, for tiles
    void  (*end)(void);
};

constexpr int64_t aim_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
constexpr int64_t aim_element_size(aim_pack type) { return type == AIM_PACK_I8 ? 1 : 2; }
// padded to a chunk of 64 bytes
constexpr int64_t aim_k_padded(aim_pack type, int64_t k) { return aim_up(k, 64 / aim_element_size(type)); }

// rows of one column block -> B: 16 packed rows of k_bytes -> [k_bytes/4][16][4]
void aim_interleave(const uint8_t * rows, size_t k_bytes, uint8_t * dst);

// what this CPU has of avx2, avx512, avx-vnni, avx512-vnni, amx: the fastest, or one by name; null where there is none
const aim_kernels * aim_kernels_best(void);
const aim_kernels * aim_kernels_named(const char * name);
