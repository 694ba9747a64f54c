// which weights of a tower are packed: those that its graph uses in matrix products only

#include "aim-pack.h"
#include "aim-cpu.h"

#include "ggml-backend.h"

#include <algorithm>
#include <map>
#include <stdexcept>

static thread_local int32_t next_precision = AIM_PRECISION_EXACT;

void aim_clip_precision(int32_t precision) { next_precision = precision; }

static ggml_backend_buffer_type_t buffer_type(int32_t precision) {
    const auto find = aim_cpu_function<aim_buffer_type_t>("aim_buffer_type");
    return find ? find(precision) : nullptr;
}

bool aim_clip_packed::begin(ggml_backend_t backend) {
    device = ggml_backend_get_device(backend);
    const bool    on_cpu = ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
    const int32_t next   = next_precision;
    next_precision = AIM_PRECISION_EXACT; // who asks for nothing gets nothing
    asked  = next != AIM_PRECISION_EXACT;
    wanted = on_cpu && buffer_type(next) ? next : AIM_PRECISION_EXACT;
    aim_compute_with(backend, wanted); // attention too
    return on_cpu && asked;
}

// ggml's own repacked type for this weight, where there are no kernels of ours (ARM): asked as a language model's loader asks
static ggml_backend_buffer_type_t repacked_type(ggml_backend_dev_t device, const ggml_tensor * weight) {
    const auto list = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts");
    ggml_init_params params = { 4*ggml_tensor_overhead(), nullptr, true };
    ggml_context_ptr ctx(ggml_init(params));
    ggml_tensor * w  = ggml_dup_tensor(ctx.get(), weight);
    ggml_tensor * mm = ggml_mul_mat(ctx.get(), w, ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, w->ne[0], 512));
    for (auto * each = list ? list(device) : nullptr; each && *each; ++each) {
        ggml_backend_buffer_ptr empty(ggml_backend_buft_alloc_buffer(*each, 0));
        w->buffer = empty.get();
        if (ggml_backend_dev_supports_op(device, mm)) {
            return *each;
        }
    }
    return nullptr;
}

ggml_backend_buffer_type_t aim_clip_packed::type_for(const ggml_tensor * weight) const {
    const bool is_kernel = weight->ne[3] > 1;
    if (wanted == AIM_PRECISION_EXACT) {
        return is_kernel ? nullptr : repacked_type(device, weight);
    }
    return buffer_type(is_kernel ? std::min<int32_t>(wanted, AIM_PRECISION_16) : wanted); // pixels are few, and all hangs on them
}

static bool can_be_packed(const ggml_tensor * w) {
    return ggml_is_contiguous(w) && w->ne[1] > 1 && (w->type == GGML_TYPE_F32 || ggml_get_type_traits(w->type)->to_float);
}

void aim_clip_packed::pack(ggml_context * weights, ggml_cgraph * graph) {
    // a convolution's kernel [w, h, channels, n] is multiplied as a matrix: a view of it, that nothing else reads
    std::map<const ggml_tensor *, bool> uses; // whether every use is a product
    auto weight_of = [](const ggml_tensor * t) { return t->op == GGML_OP_RESHAPE && t->src[0]->op == GGML_OP_NONE ? t->src[0] : t; };
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_RESHAPE && node->src[0]->op == GGML_OP_NONE) {
            continue; // counted where it is used
        }
        for (int s = 0; s < GGML_MAX_SRC && node->src[s]; s++) {
            const bool product = node->op == GGML_OP_MUL_MAT && s == 0 && node->src[0]->ne[2] == 1 && node->src[0]->ne[3] == 1
                              && node->src[1]->type == GGML_TYPE_F32;
            const bool shape_only = node->op == GGML_OP_IM2COL && s == 0; // of the kernel it reads the size
            const ggml_tensor * w = weight_of(node->src[s]);
            uses[w] = (uses.count(w) ? uses[w] : true) && (product || shape_only);
        }
    }
    std::map<ggml_backend_buffer_type_t, std::vector<ggml_tensor *>> chosen;
    for (ggml_tensor * t = ggml_get_first_tensor(weights); t; t = ggml_get_next_tensor(weights, t)) {
        const auto use = uses.find(t);
        const ggml_backend_buffer_type_t buft = use != uses.end() && use->second && can_be_packed(t) ? type_for(t) : nullptr;
        if (buft) {
            chosen[buft].push_back(t);
        }
    }
    for (const auto & [buft, tensors] : chosen) {
        const size_t alignment = ggml_backend_buft_get_alignment(buft);
        auto room = [&](const ggml_tensor * t) { return (ggml_backend_buft_get_alloc_size(buft, t) + alignment - 1) / alignment * alignment; };
        size_t size = 0;
        for (const ggml_tensor * t : tensors) {
            size += room(t);
        }
        ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(buft, size));
        if (!buffer) {
            throw std::runtime_error("not enough memory for the packed weights of the vision tower");
        }
        ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        char * at = (char *) ggml_backend_buffer_get_base(buffer.get());
        for (ggml_tensor * t : tensors) {
            ggml_backend_tensor_alloc(buffer.get(), t, at);
            at += room(t);
        }
        buffers.push_back(std::move(buffer));
    }
}
