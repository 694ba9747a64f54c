// products of a language model's prefill: its weights stay in ggml's AMX buffer, where decoding reads them, and are
// unpacked to the wide type a part at a time, for all rows of the batch

#include "aim-traits.h"

#include "amx/amx.h"
#include "ggml-impl.h"

#include <algorithm>

#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)

constexpr int64_t MIN_ROWS = 64;    // below it unpacking costs more than the product saves
constexpr int64_t M_STEP   = 512;   // rows of A, K_PART of them 1 MiB,
constexpr int64_t K_PART   = 1024;  // that stay in the second-level cache while the columns of a unit pass by,
constexpr int64_t BLOCKS   = 8;     // with their sums: 128 columns

struct block_layout { int64_t k, bytes; }; // of one block of 16 columns in the buffer

static block_layout layout_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return { 32, 288 };
        case GGML_TYPE_Q8_0: return { 32, 608 };
        case GGML_TYPE_Q4_K: return { 256, 2368 };
        case GGML_TYPE_Q6_K: return { 256, 3360 };
        default:             return { 0, 0 };
    }
}

struct unpacked_traits : ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override;
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override;
};

ggml::cpu::tensor_traits * aim_unpacked_traits(const ggml_tensor * op) {
    static unpacked_traits traits;
    const ggml_tensor * w = op->src[0], * x = op->src[1];
    const aim_kernels * kernels = aim_kernels_in_use();
    const bool usable = aim_marked(op) && kernels && kernels->unpack && w->buffer && w->buffer->buft == ggml_backend_amx_buffer_type()
        && layout_of(w->type).k && w->ne[1] % 32 == 0 && w->ne[0] % layout_of(w->type).k == 0 && w->ne[2] == 1 && w->ne[3] == 1
        && x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && ggml_is_contiguous(op) && ggml_nrows(x) >= MIN_ROWS;
    return usable ? &traits : nullptr;
}

struct unpacked_sizes {
    int64_t m, k, n, k_padded;
    size_t  k_bytes;

    explicit unpacked_sizes(const ggml_tensor * op) : m(ggml_nrows(op)), k(op->src[0]->ne[0]), n(op->ne[0]),
        k_padded(aim_k_padded(AIM_PACK_BF16, k)), k_bytes(2*k_padded) {}

    size_t rows() const { return aim_up(m, 32)*k_bytes; }
    static size_t columns() { return 2*16*2*K_PART; }
    static size_t sums() { return BLOCKS/2*M_STEP/32*4096; }
};

bool unpacked_traits::work_size(int n_threads, const ggml_tensor * op, size_t & size) {
    const unpacked_sizes s(op);
    size = s.rows() + n_threads*(s.columns() + s.sums() + 256) + 256;
    return true;
}

bool unpacked_traits::compute_forward(ggml_compute_params * params, ggml_tensor * op) {
    const unpacked_sizes s(op);
    const aim_kernels &  kernels = *aim_kernels_in_use();
    const ggml_tensor *  w       = op->src[0];
    const block_layout   layout  = layout_of(w->type);
    aim_arena arena(params->wdata);
    uint8_t * rows    = arena.take<uint8_t>(s.rows());
    uint8_t * columns = arena.take<uint8_t>(params->nth*s.columns()) + params->ith*s.columns();
    uint8_t * sums    = arena.take<uint8_t>(params->nth*s.sums())    + params->ith*s.sums();

    aim_units units(params);
    units.share((s.m + 15)/16, [&](int64_t tile) {
        for (int64_t m = 16*tile; m < std::min(16*tile + 16, s.m); m++) {
            const aim_source row = { (const char *) op->src[1]->data + m*s.k*sizeof(float), 0, false };
            kernels.pack_row(AIM_PACK_BF16, row, s.k, s.k_padded, rows + tile*16*s.k_bytes + m%16*64, 1024, nullptr, nullptr);
        }
    });

    const int64_t n_blocks = s.n/16, n_units = (n_blocks + BLOCKS - 1)/BLOCKS, n_steps = (s.m + M_STEP - 1)/M_STEP;
    kernels.begin();
    units.finish(n_units*n_steps, [&](int64_t unit) {
        const int64_t m0 = unit/n_units*M_STEP, m = std::min(M_STEP, s.m - m0);
        const int64_t b0 = unit%n_units*BLOCKS, b1 = std::min(b0 + BLOCKS, n_blocks);
        for (int64_t k0 = 0; k0 < s.k; k0 += K_PART) {
            const int64_t k = std::min(K_PART, s.k - k0);
            const size_t  k_bytes = 2*aim_k_padded(AIM_PACK_BF16, k);
            for (int64_t b = b0; b < b1; b += 2) {
                for (int64_t j = 0; j < 2; j++) {
                    const uint8_t * blocks = (const uint8_t *) w->data + ((b + j)*(s.k/layout.k) + k0/layout.k)*layout.bytes;
                    for (int64_t i = 0; i < k/layout.k; i++) {
                        kernels.unpack(w->type, blocks + i*layout.bytes, columns + 16*k_bytes*j + 32*layout.k*i);
                    }
                }
                kernels.accumulate({ rows + m0*s.k_bytes + 32*k0, s.k_bytes, nullptr, nullptr }, { columns, k_bytes, nullptr, nullptr },
                                   k_bytes, m, 2, sums + (b - b0)/2*M_STEP/32*4096, k0 == 0);
            }
        }
        aim_out out = {};
        out.dst        = (float *) op->data + m0*s.n;
        out.dst_stride = s.n;
        out.n          = (int32_t) s.n;
        for (int64_t b = b0; b < b1; b += 2) {
            kernels.finish(sums + (b - b0)/2*M_STEP/32*4096, m, b, 2, &out);
        }
    });
    kernels.end();
    return true;
}

#else

ggml::cpu::tensor_traits * aim_unpacked_traits(const ggml_tensor *) { return nullptr; }

#endif
