// products of a language model's prefill: its weights stay where decoding reads them, and are unpacked to the wide type a part
// at a time, for all rows of the batch

#include "aim-traits.h"

#include "amx/amx.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "repack.h"

#include <algorithm>

constexpr int64_t MIN_ROWS = 64; // below it unpacking costs more than the product saves
constexpr int64_t BLOCKS   = 8;  // column blocks of a unit

struct unpacked_traits : ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override;
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override;
};

static bool is_amx(ggml_backend_buffer_type_t buft) {
#if defined(__AMX_INT8__) && defined(__AVX512VNNI__) // as in ggml-cpu.cpp
    return buft == ggml_backend_amx_buffer_type();
#else
    GGML_UNUSED(buft);
    return false;
#endif
}

// bytes of one block of 16 rows, 0 where ggml has none
static int64_t amx_block_bytes(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return 288;
        case GGML_TYPE_Q8_0: return 608;
        case GGML_TYPE_Q4_K: return 2368;
        case GGML_TYPE_Q6_K: return 3360;
        default:             return 0;
    }
}

// where the weight lies; block_k is 0 where our kernels cannot read it
static aim_stored stored(const ggml_tensor * op) {
    const ggml_tensor * w = op->src[0];
    aim_stored res = { AIM_STORE_ROWS, w->type, (const uint8_t *) w->data, w->ne[0], 0, 0, nullptr };
    if (!w->buffer || !aim_marked_weight(op) || w->view_src || w->ne[2] != 1 || w->ne[3] != 1) {
        return res;
    }
    ggml_backend_buffer_type_t buft = w->buffer->buft;
    if (is_amx(buft)) {
        res.store       = AIM_STORE_AMX;
        res.block_bytes = w->ne[1] % 32 == 0 ? amx_block_bytes(w->type) : 0;
    } else if (buft == ggml_backend_cpu_repack_buffer_type()) {
        res.store       = AIM_STORE_X8;
        res.block_bytes = w->type == GGML_TYPE_Q4_0 ? (int64_t) sizeof(block_q4_0x8) : w->type == GGML_TYPE_Q4_K ? (int64_t) sizeof(block_q4_Kx8) : 0;
    } else if (ggml_backend_buft_is_host(buft) && ggml_is_contiguous(w)) {
        res.to_float    = ggml_get_type_traits(w->type)->to_float;
        res.block_bytes = res.to_float ? (int64_t) ggml_type_size(w->type) : 0;
    }
    res.block_k = res.block_bytes ? ggml_blck_size(w->type) : 0;
    return res;
}

ggml::cpu::tensor_traits * aim_unpacked_traits(const ggml_tensor * op) {
    static unpacked_traits traits;
    const ggml_tensor * w = op->src[0], * x = op->src[1];
    const aim_kernels * kernels = aim_kernels_in_use();
    if (!kernels || !aim_marked(op) || x->type != GGML_TYPE_F32 || !ggml_is_contiguous(x) || !ggml_is_contiguous(op) || ggml_nrows(x) < MIN_ROWS) {
        return nullptr;
    }
    const aim_stored from = stored(op);
    const bool usable = from.block_k && kernels->can_unpack(from.store, w->type) && w->ne[1] % 16 == 0 && w->ne[0] % std::max<int64_t>(from.block_k, 32) == 0;
    return usable ? &traits : nullptr;
}

struct unpacked_sizes {
    const aim_kernels & kernels = *aim_kernels_in_use();
    int64_t m, k, n, k_padded, k_part;
    size_t  k_bytes;

    explicit unpacked_sizes(const ggml_tensor * op) : m(ggml_nrows(op)), k(op->src[0]->ne[0]), n(op->ne[0]), k_padded(aim_k_padded(kernels.wide, k)),
        k_part(kernels.k_part), k_bytes(2*k_padded) {}

    size_t rows() const    { return aim_up(m, 32)*k_bytes; }
    size_t columns() const { return 2*16*2*k_part; }
    size_t scales() const  { return 2*16*k_part/32; }
    size_t work() const    { return 9*std::max(k_part, k_padded); }
    static size_t sums()   { return BLOCKS*64*AIM_M_STEP; }
    size_t thread() const  { return columns() + sums() + (scales() + work())*sizeof(float) + 256; }
};

bool unpacked_traits::work_size(int n_threads, const ggml_tensor * op, size_t & size) {
    const unpacked_sizes s(op);
    size = s.rows() + (s.m + 64)*sizeof(float) + n_threads*s.thread() + 512;
    return true;
}

bool unpacked_traits::compute_forward(ggml_compute_params * params, ggml_tensor * op) {
    const unpacked_sizes s(op);
    const aim_kernels &  kernels = s.kernels;
    const aim_stored     weight  = stored(op);
    aim_arena arena(params->wdata);
    uint8_t * rows       = arena.take<uint8_t>(s.rows());
    float *   row_scales = arena.take<float>(s.m);
    uint8_t * columns    = arena.take<uint8_t>(params->nth*s.columns()) + params->ith*s.columns();
    uint8_t * sums       = arena.take<uint8_t>(params->nth*s.sums())    + params->ith*s.sums();
    float *   scales     = arena.take<float>(params->nth*s.scales())    + params->ith*s.scales();
    float *   work       = arena.take<float>(params->nth*s.work())      + params->ith*s.work();

    aim_units units(params);
    units.share((s.m + 15)/16, [&](int64_t tile) {
        for (int64_t m = 16*tile; m < std::min(16*tile + 16, s.m); m++) {
            const aim_source row = { (const char *) op->src[1]->data + m*s.k*sizeof(float), 0, false };
            uint8_t * to = kernels.tiled ? rows + tile*16*s.k_bytes + m%16*64 : rows + m*s.k_bytes;
            kernels.pack_row(kernels.wide, row, s.k, s.k_padded, to, kernels.tiled ? 1024 : 64, row_scales + m, work);
        }
    });

    const int64_t n_blocks = s.n/16, n_units = (n_blocks + BLOCKS - 1)/BLOCKS, n_steps = (s.m + AIM_M_STEP - 1)/AIM_M_STEP;
    kernels.begin();
    units.finish(n_units*n_steps, [&](int64_t unit) {
        const int64_t m0 = unit/n_units*AIM_M_STEP, m = std::min(AIM_M_STEP, s.m - m0);
        const int64_t b0 = unit%n_units*BLOCKS, b1 = std::min(b0 + BLOCKS, n_blocks);
        auto sums_of = [&](int64_t b) { return sums + (b - b0)*64*AIM_M_STEP; };
        for (int64_t k0 = 0; k0 < s.k; k0 += s.k_part) {
            const int64_t k = std::min(s.k_part, s.k - k0);
            for (int64_t b = b0; b < b1; b += 2) {
                const int64_t n = std::min<int64_t>(2, b1 - b);
                for (int64_t j = 0; j < n; j++) {
                    kernels.unpack(weight, 16*(b + j), k0, k, columns + 32*k*j, scales + k/2*j, work);
                }
                const aim_operand a = { rows + m0*s.k_bytes + (kernels.tiled ? 32 : 2)*k0, s.k_bytes, nullptr, nullptr };
                kernels.accumulate(a, { columns, (size_t) (2*k), scales, nullptr }, 2*k, m, n, sums_of(b), k0 == 0);
            }
        }
        aim_out out = {};
        out.dst        = (float *) op->data + m0*s.n;
        out.dst_stride = s.n;
        out.n          = (int32_t) s.n;
        for (int64_t b = b0; b < b1; b += 2) {
            kernels.finish(sums_of(b), row_scales + m0, m, b, std::min<int64_t>(2, b1 - b), &out);
        }
    });
    kernels.end();
    return true;
}
