// one product, one attention through the CPU backend as a tower's graph has them: for tests and measurements

#include "aim-mtmd.h"
#include "aim-cpu.h"
#include "aim-guard.h"

#include "ggml-cpp.h"
#include "ggml-cpu.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace {

// a graph of a few nodes on the CPU; tensors are made first, filled after alloc()
struct probe {
    ggml_context_ptr        ctx;
    ggml_backend_ptr        cpu;
    ggml_backend_buffer_ptr buffer, packed;

    explicit probe(int32_t n_threads) : cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr)) {
        ggml_init_params params = { 64*ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true };
        ctx.reset(ggml_init(params));
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu.get()));
        const auto set_n_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
        set_n_threads(cpu.get(), aim_thread_count(n_threads));
    }

    ggml_tensor * vector(const float * data, int64_t n) { return data ? ggml_new_tensor_1d(ctx.get(), GGML_TYPE_F32, n) : nullptr; }

    void alloc() { buffer.reset(ggml_backend_alloc_ctx_tensors(ctx.get(), cpu.get())); }

    static void fill(ggml_tensor * t, const float * data) {
        if (t) {
            ggml_backend_tensor_set(t, data, 0, ggml_nbytes(t));
        }
    }

    void run(ggml_cgraph * graph, const ggml_tensor * result, float * out) {
        if (ggml_backend_graph_compute(cpu.get(), graph) != GGML_STATUS_SUCCESS) {
            aim_fail(AIM_STATUS_FAILED, "the CPU backend could not compute the graph");
        }
        ggml_backend_tensor_get(result, out, 0, ggml_nbytes(result));
    }
};

void expect_finite(const float * data, int64_t n, const char * name) {
    for (int64_t i = 0; data && i < n; i++) {
        if (!std::isfinite(data[i])) {
            aim_fail(AIM_STATUS_INVALID, "%s[%lld] is %f; it has to be finite", name, (long long) i, data[i]);
        }
    }
}

ggml_tensor * activated(ggml_context * ctx, ggml_tensor * x, int32_t act) {
    switch (act) {
        case 0:  return x;
        case 1:  return ggml_gelu(ctx, x);
        case 2:  return ggml_gelu_erf(ctx, x);
        case 3:  return ggml_gelu_quick(ctx, x);
        case 4:  return ggml_silu(ctx, x);
        case 5:  return ggml_relu(ctx, x);
        default: aim_fail(AIM_STATUS_INVALID, "act is %d; give 0 to 5", act);
    }
}

} // namespace

int32_t aim_probe_product(const struct aim_probe_product_params * p, float * out) {
    return aim_guard([&]() -> int32_t {
        aim_expect(p && p->x && p->w ? out : nullptr, "x, w or out");
        if (p->m < 1 || p->k < 1 || p->n < 2) {
            aim_fail(AIM_STATUS_INVALID, "the product is %d x %d x %d; m and k are at least 1, n at least 2", p->m, p->k, p->n);
        }
        expect_finite(p->x, (int64_t) p->m*p->k, "x");
        expect_finite(p->w, (int64_t) p->n*p->k, "w");
        probe graph(p->n_threads);
        ggml_context * ctx = graph.ctx.get();
        ggml_tensor * w = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, p->k, p->n);
        if (p->precision != AIM_PRECISION_EXACT) {
            const auto find = aim_cpu_function<aim_buffer_type_t>("aim_buffer_type");
            const ggml_backend_buffer_type_t buft = find ? find(p->precision) : nullptr;
            if (!buft) {
                aim_fail(AIM_STATUS_FAILED, "this CPU has no kernels of ours");
            }
            graph.packed.reset(ggml_backend_buft_alloc_buffer(buft, ggml_backend_buft_get_alloc_size(buft, w)));
            ggml_backend_tensor_alloc(graph.packed.get(), w, ggml_backend_buffer_get_base(graph.packed.get()));
        }
        ggml_tensor * x        = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, p->k, p->m);
        ggml_tensor * residual = p->residual ? ggml_new_tensor_2d(ctx, GGML_TYPE_F32, p->n, p->m) : nullptr;
        ggml_tensor * bias     = graph.vector(p->bias, p->n);
        ggml_tensor * gamma    = graph.vector(p->gamma, p->n);
        ggml_tensor * weight   = graph.vector(p->norm_weight, p->k);
        ggml_tensor * cur = weight ? ggml_mul(ctx, ggml_norm(ctx, x, 1e-6f), weight) : x;
        cur = ggml_mul_mat(ctx, w, cur);
        cur = bias ? ggml_add(ctx, cur, bias) : cur;
        cur = activated(ctx, cur, p->act);
        cur = gamma ? ggml_mul(ctx, cur, gamma) : cur;
        cur = residual ? ggml_add(ctx, residual, cur) : cur;
        ggml_cgraph * gf = ggml_new_graph(ctx);
        ggml_build_forward_expand(gf, cur);
        graph.alloc();
        probe::fill(w, p->w);
        probe::fill(x, p->x);
        probe::fill(residual, p->residual);
        probe::fill(bias, p->bias);
        probe::fill(gamma, p->gamma);
        probe::fill(weight, p->norm_weight);
        graph.run(gf, cur, out);
        return AIM_STATUS_OK;
    });
}

// AIM_STATUS_UNSUPPORTED where this CPU has no such buffer type, or it does not take the weight
static void place(probe & graph, ggml_tensor * w, const char * name) {
    ggml_backend_dev_t dev = ggml_backend_get_device(graph.cpu.get());
    ggml_backend_buffer_type_t found = strcmp(name, "CPU") == 0 ? ggml_backend_cpu_buffer_type() : nullptr;
    const auto get = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), "ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t * buft = get ? get(dev) : nullptr; buft && *buft; buft++) {
        found = strcmp(name, ggml_backend_buft_name(*buft)) == 0 ? *buft : found;
    }
    if (!found) {
        aim_fail(AIM_STATUS_UNSUPPORTED, "this CPU backend has no buffer type %s", name);
    }
    graph.packed.reset(ggml_backend_buft_alloc_buffer(found, ggml_backend_buft_get_alloc_size(found, w)));
    ggml_backend_buffer_set_usage(graph.packed.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_alloc(graph.packed.get(), w, ggml_backend_buffer_get_base(graph.packed.get()));
}

int32_t aim_probe_stored(const struct aim_probe_stored_params * p, float * out) {
    return aim_guard([&]() -> int32_t {
        aim_expect(p && p->x && p->w && p->buffer ? out : nullptr, "x, w, buffer or out");
        if (p->type < 0 || p->type >= GGML_TYPE_COUNT || p->m < 1 || p->n < 1 || p->k < 1 || p->k % ggml_blck_size((ggml_type) p->type)) {
            aim_fail(AIM_STATUS_INVALID, "the product is %d x %d x %d of type %d; k is whole blocks", p->m, p->k, p->n, p->type);
        }
        expect_finite(p->x, (int64_t) p->m*p->k, "x");
        probe graph(p->n_threads);
        ggml_context * ctx = graph.ctx.get();
        ggml_tensor * w = ggml_new_tensor_2d(ctx, (ggml_type) p->type, p->k, p->n);
        place(graph, w, p->buffer);
        ggml_tensor * x   = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, p->k, p->m);
        ggml_tensor * cur = ggml_mul_mat(ctx, w, x);
        if (!ggml_backend_dev_supports_op(ggml_backend_get_device(graph.cpu.get()), cur)) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "buffer type %s takes no %s of %d rows of %d", p->buffer, ggml_type_name(w->type), p->n, p->k);
        }
        aim_compute_with(graph.cpu.get(), p->precision);
        ggml_cgraph * gf = ggml_new_graph(ctx);
        ggml_build_forward_expand(gf, cur);
        graph.alloc();
        ggml_backend_tensor_set(w, p->w, 0, ggml_nbytes(w));
        probe::fill(x, p->x);
        graph.run(gf, cur, out);
        return AIM_STATUS_OK;
    });
}

int32_t aim_probe_attention(const struct aim_probe_attention_params * p, float * out) {
    return aim_guard([&]() -> int32_t {
        aim_expect(p && p->q && p->k && p->v ? out : nullptr, "q, k, v or out");
        if (p->d < 1 || p->n_q < 1 || p->n_kv < 1 || p->n_head_kv < 1 || p->n_head % p->n_head_kv != 0) {
            aim_fail(AIM_STATUS_INVALID, "d %d, n_q %d, n_kv %d, n_head %d, n_head_kv %d do not fit together", p->d, p->n_q, p->n_kv, p->n_head, p->n_head_kv);
        }
        probe graph(p->n_threads);
        ggml_context * ctx = graph.ctx.get();
        ggml_tensor * q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, p->d, p->n_q, p->n_head);
        ggml_tensor * k = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, p->d, p->n_kv, p->n_head_kv);
        ggml_tensor * v = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, p->d, p->n_kv, p->n_head_kv);
        ggml_tensor * mask = p->mask ? ggml_new_tensor_2d(ctx, GGML_TYPE_F32, p->n_kv, p->n_q) : nullptr;
        const ggml_type type = p->kv_type == GGML_TYPE_F32 ? GGML_TYPE_F16 : (ggml_type) p->kv_type; // as both towers' graphs round them
        ggml_tensor * cur = ggml_flash_attn_ext(ctx, q, ggml_cast(ctx, k, type), ggml_cast(ctx, v, type),
            mask ? ggml_cast(ctx, mask, GGML_TYPE_F16) : nullptr, p->scale, 0.0f, 0.0f);
        ggml_prec_set_acc(cur, GGML_PREC_F32);
        aim_compute_with(graph.cpu.get(), p->precision);
        ggml_cgraph * gf = ggml_new_graph(ctx);
        ggml_build_forward_expand(gf, cur);
        graph.alloc();
        probe::fill(q, p->q);
        probe::fill(k, p->k);
        probe::fill(v, p->v);
        probe::fill(mask, p->mask);
        graph.run(gf, cur, out);
        return AIM_STATUS_OK;
    });
}
