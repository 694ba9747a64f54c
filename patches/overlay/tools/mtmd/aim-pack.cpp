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
    const bool on_cpu = ggml_backend_dev_type(ggml_backend_get_device(backend)) == GGML_BACKEND_DEVICE_TYPE_CPU;
    wanted = on_cpu && buffer_type(next_precision) ? next_precision : AIM_PRECISION_EXACT;
    aim_compute_with(backend, wanted); // attention too
    return wanted != AIM_PRECISION_EXACT;
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
        if (use != uses.end() && use->second && can_be_packed(t)) {
            // pixels are few and every later row hangs on them
            chosen[buffer_type(t->ne[3] > 1 ? std::min<int32_t>(wanted, AIM_PRECISION_16) : wanted)].push_back(t);
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
