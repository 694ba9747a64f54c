#include "aim-project.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"

constexpr int MAX_NODES = 32;

static void set_threads(ggml_backend_t backend, int32_t n_threads) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    const auto set = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (set) {
        set(backend, n_threads);
    }
}

static ggml_tensor * linear(ggml_context * ctx, ggml_tensor * w, ggml_tensor * b, ggml_tensor * x) {
    x = ggml_mul_mat(ctx, w, x);
    return b ? ggml_add(ctx, x, b) : x;
}

bool aim_project(const clip_model & model, const std::vector<ggml_backend_t> & backends, const float * rows, int32_t n, int32_t n_threads, float * out) {
    ggml_init_params params = { MAX_NODES*ggml_tensor_overhead() + ggml_graph_overhead_custom(MAX_NODES, false), nullptr, true };
    ggml_context_ptr ctx(ggml_init(params));
    ggml_tensor * x = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, model.mm_0_w->ne[0], n);
    ggml_set_input(x);
    ggml_tensor * cur = linear(ctx.get(), model.mm_0_w, model.mm_0_b, x);
    cur = linear(ctx.get(), model.mm_2_w, model.mm_2_b, ggml_gelu_erf(ctx.get(), cur)); // [n_mmproj_embd, n]
    ggml_set_output(cur);
    ggml_cgraph * graph = ggml_new_graph_custom(ctx.get(), MAX_NODES, false);
    ggml_build_forward_expand(graph, cur);

    std::vector<ggml_backend_t> on = backends;
    ggml_backend_sched_ptr sched(ggml_backend_sched_new(on.data(), nullptr, (int) on.size(), MAX_NODES, false, true));
    if (!sched || !ggml_backend_sched_alloc_graph(sched.get(), graph)) {
        return false;
    }
    for (ggml_backend_t backend : on) {
        set_threads(backend, n_threads);
    }
    ggml_backend_tensor_set(x, rows, 0, ggml_nbytes(x));
    if (ggml_backend_sched_graph_compute(sched.get(), graph) != GGML_STATUS_SUCCESS) {
        return false;
    }
    ggml_backend_tensor_get(cur, out, 0, ggml_nbytes(cur));
    return true;
}
