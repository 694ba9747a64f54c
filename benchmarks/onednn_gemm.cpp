// one product by oneDNN and by our kernels in turn, one thread; onednn_gemm.py builds and runs it
//   onednn_gemm KERNELS TYPE M K N ROUNDS    TYPE: int8, or wide: bf16 with amx, else int16 beside oneDNN's float32
// prints the least CPU milliseconds of: oneDNN's product, ours; and of both from float rows to float rows, with bias and gelu

#include "aim-kernels.h"

#include <dnnl.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

static double now_ms() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec*1e3 + t.tv_nsec*1e-6;
}

struct aligned {
    std::unique_ptr<uint8_t, decltype(&free)> at;
    explicit aligned(size_t n) : at((uint8_t *) aligned_alloc(2 << 20, (n + (2 << 20) - 1)/(2 << 20)*(2 << 20)), free) {
        memset(at.get(), 0, n);
    }
    template <typename T> T * as() { return (T *) at.get(); }
};

struct problem {
    int64_t m, k, n;
    std::vector<float> x, w, bias;

    problem(int64_t m, int64_t k, int64_t n, float spread) : m(m), k(k), n(n), x(m*k), w(n*k), bias(n) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        for (auto * values : { &x, &w, &bias }) {
            for (float & value : *values) {
                value = normal(random);
            }
        }
        for (float & value : w) {
            value *= spread/std::sqrt((float) k); // results like a tower's
        }
    }
};

// as aim-products.cpp shares a product out, for one thread
struct ours {
    const problem &     p;
    const aim_kernels & kernels;
    aim_pack            type;
    int64_t             k_padded, k_bytes, n_padded;
    aligned             a, b, a_scales, b_scales, b_sums, work, dst;

    ours(const problem & p, const aim_kernels & kernels, aim_pack type) : p(p), kernels(kernels), type(type), k_padded(aim_k_padded(type, p.k)),
        k_bytes(k_padded*aim_element_size(type)), n_padded(aim_up(p.n, 16)), a(aim_up(p.m, 32)*k_bytes), b(n_padded*k_bytes), a_scales(4*aim_up(p.m, 32)),
        b_scales(4*n_padded), b_sums(4*n_padded), work(4*(k_padded + 64)), dst(4*(p.m + 16)*n_padded) {
        aligned block(16*k_bytes);
        for (int64_t n = 0; n < p.n; n++) {
            kernels.pack_column(type, { (const char *) &p.w[n*p.k], 0, false }, p.k, k_padded, block.as<uint8_t>() + n%16*k_bytes,
                                b_scales.as<float>() + n, b_sums.as<int32_t>() + n, work.as<float>());
            if (n%16 == 15 || n == p.n - 1) {
                aim_interleave(block.as<uint8_t>(), k_bytes, b.as<uint8_t>() + n/16*16*k_bytes);
            }
        }
        pack();
    }

    void pack() {
        for (int64_t m = 0; m < p.m; m++) {
            uint8_t * to = a.as<uint8_t>() + (kernels.tiled ? m/16*16*k_bytes + m%16*64 : m*k_bytes);
            kernels.pack_row(type, { (const char *) &p.x[m*p.k], 0, false }, p.k, k_padded, to, kernels.tiled ? 1024 : 64, a_scales.as<float>() + m, work.as<float>());
        }
    }

    void product(bool epilogue) {
        aim_out out = {};
        out.dst        = dst.as<float>();
        out.dst_stride = p.n;
        out.n          = (int32_t) p.n;
        out.bias       = epilogue ? p.bias.data() : nullptr;
        out.act        = epilogue ? AIM_ACT_GELU : AIM_ACT_NONE;
        const bool        scaled = type != AIM_PACK_BF16;
        const aim_operand rows = { a.as<uint8_t>(), (size_t) k_bytes, scaled ? a_scales.as<float>() : nullptr, nullptr };
        const aim_operand columns = { b.as<uint8_t>(), (size_t) k_bytes, scaled ? b_scales.as<float>() : nullptr, b_sums.as<int32_t>() };
        const int64_t parts = (p.m*k_bytes + (1 << 20) - 1)/(1 << 20), step = aim_up((p.m + parts - 1)/parts, 32), blocks = n_padded/16;
        kernels.begin();
        for (int64_t m0 = 0; m0 < p.m; m0 += step) {
            for (int64_t b0 = 0; b0 < blocks; b0 += 8) {
                kernels.gemm(type, rows, columns, k_bytes, m0, std::min(m0 + step, p.m), b0, std::min(b0 + 8, blocks), &out);
            }
        }
        kernels.end();
    }
};

struct theirs {
    using desc = dnnl::memory::desc;
    using types = dnnl::memory::data_type;
    using tags = dnnl::memory::format_tag;

    const problem & p;
    dnnl::engine engine{ dnnl::engine::kind::cpu, 0 };
    dnnl::stream stream{ engine };
    dnnl::memory x, w, a, b, bias, dst, x_scale, w_scale;
    dnnl::matmul plain, fused;
    dnnl::reorder round;

    dnnl::memory floats(const std::vector<float> & values, desc d) {
        dnnl::memory to(d, engine);
        memcpy(to.get_data_handle(), values.data(), values.size()*sizeof(float));
        return to;
    }

    theirs(const problem & p, types type) : p(p) {
        const desc as{ { p.m, p.k }, type, tags::ab }, any{ { p.k, p.n }, type, tags::any }, out{ { p.m, p.n }, types::f32, tags::ab };
        const desc of_bias{ { 1, p.n }, types::f32, tags::ab };
        const bool scaled = type == types::s8;
        dnnl::primitive_attr attr, with_gelu, to_a, to_b;
        if (scaled) {
            for (auto * each : { &attr, &with_gelu }) {
                each->set_scales_mask(DNNL_ARG_SRC, 0);
                each->set_scales_mask(DNNL_ARG_WEIGHTS, 2);
            }
            to_a.set_scales_mask(DNNL_ARG_DST, 0);
            to_b.set_scales_mask(DNNL_ARG_DST, 2);
        }
        dnnl::post_ops gelu;
        gelu.append_eltwise(dnnl::algorithm::eltwise_gelu_tanh, 0, 0);
        with_gelu.set_post_ops(gelu);
        const dnnl::matmul::primitive_desc fused_desc(engine, as, any, of_bias, out, with_gelu), plain_desc(engine, as, fused_desc.weights_desc(), out, attr);
        fused = dnnl::matmul(fused_desc);
        plain = dnnl::matmul(plain_desc);
        printf("%s ", plain_desc.impl_info_str());

        x = floats(p.x, { { p.m, p.k }, types::f32, tags::ab });
        w = floats(p.w, { { p.k, p.n }, types::f32, tags::ba });
        bias = floats(p.bias, of_bias);
        a = dnnl::memory(as, engine);
        b = dnnl::memory(fused_desc.weights_desc(), engine);
        dst = dnnl::memory(out, engine);
        float highest = 0;
        std::vector<float> columns(p.n, 0.0f);
        for (int64_t i = 0; i < p.m*p.k; i++) { highest = std::max(highest, std::fabs(p.x[i])); }
        for (int64_t i = 0; i < p.n*p.k; i++) { columns[i/p.k] = std::max(columns[i/p.k], std::fabs(p.w[i])/127); }
        x_scale = floats({ highest/127 }, { { 1 }, types::f32, tags::a });
        w_scale = floats(columns, { { p.n }, types::f32, tags::a });
        std::unordered_map<int, dnnl::memory> args{ { DNNL_ARG_FROM, w }, { DNNL_ARG_TO, b } };
        if (scaled) { args[DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST] = w_scale; }
        dnnl::reorder(dnnl::reorder::primitive_desc(w, b, to_b)).execute(stream, args);
        round = dnnl::reorder(dnnl::reorder::primitive_desc(x, a, to_a));
        pack();
    }

    void pack() {
        round.execute(stream, { { DNNL_ARG_FROM, x }, { DNNL_ARG_TO, a }, { DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST, x_scale } });
        stream.wait();
    }

    void product(bool epilogue) {
        (epilogue ? fused : plain).execute(stream, { { DNNL_ARG_SRC, a }, { DNNL_ARG_WEIGHTS, b }, { DNNL_ARG_BIAS, bias }, { DNNL_ARG_DST, dst },
            { DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC, x_scale }, { DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, w_scale } });
        stream.wait();
    }
};

template <typename F> static void least(double & best, F && f) {
    const double start = now_ms();
    f();
    best = std::min(best, now_ms() - start);
}

// root mean square of the differences over that of float64's, on some rows
static double error(const problem & p, const float * got) {
    double wrong = 0, all = 0;
    for (int64_t m = 0; m < p.m; m += 97) {
        for (int64_t n = 0; n < p.n; n++) {
            double want = 0;
            for (int64_t i = 0; i < p.k; i++) { want += (double) p.x[m*p.k + i]*p.w[n*p.k + i]; }
            wrong += (got[m*p.n + n] - want)*(got[m*p.n + n] - want);
            all += want*want;
        }
    }
    return std::sqrt(wrong/all);
}

int main(int argc, char ** argv) {
    const aim_kernels * kernels = argc == 7 ? aim_kernels_named(argv[1]) : nullptr;
    if (kernels == nullptr) {
        fprintf(stderr, "this CPU has no such kernels\n");
        return 1;
    }
    const bool int8 = strcmp(argv[2], "int8") == 0;
    const problem p(atoll(argv[3]), atoll(argv[4]), atoll(argv[5]), getenv("SPREAD") ? atof(getenv("SPREAD")) : 1);
    ours   o(p, *kernels, int8 ? AIM_PACK_I8 : kernels->wide);
    theirs t(p, int8 ? dnnl::memory::data_type::s8 : kernels->wide == AIM_PACK_BF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32);
    double best[4] = { 1e9, 1e9, 1e9, 1e9 };
    for (int i = 0; i < atoi(argv[6]); i++) {
        least(best[0], [&] { t.product(false); });
        least(best[1], [&] { o.product(false); });
        least(best[2], [&] { t.pack(); t.product(true); });
        least(best[3], [&] { o.pack(); o.product(true); });
    }
    t.product(false);
    o.product(false);
    printf("%.3f %.3f %.3f %.3f %.2g %.2g\n", best[0], best[1], best[2], best[3], error(p, (const float *) t.dst.get_data_handle()), error(p, o.dst.as<float>()));
}
