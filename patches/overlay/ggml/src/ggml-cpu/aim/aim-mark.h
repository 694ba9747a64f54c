// which nodes of a graph our CPU kernels compute: a number among the node's parameters, behind those of ggml. It goes to
// another machine with the node (ggml-rpc), so the one who asks says how a server's CPU computes
#pragma once

#include "ggml-backend.h"
#include "ggml-impl.h"

constexpr int     AIM_MARK_AT     = 15;     // products have 2 parameters of ggml's, attention 5
constexpr int32_t AIM_MARK_WEIGHT = 1 << 8; // beside the precision: the product is with a weight, which a server cannot tell
static_assert(GGML_MAX_OP_PARAMS >= (AIM_MARK_AT + 1)*sizeof(int32_t), "room for the mark");

inline bool aim_is_weight(const ggml_tensor * t) {
    return t->buffer && ggml_backend_buffer_get_usage(t->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
}

inline void aim_mark_nodes(ggml_cgraph * graph, int32_t precision) {
    for (int i = 0; i < graph->n_nodes; i++) {
        ggml_tensor * op = graph->nodes[i];
        if (op->op == GGML_OP_FLASH_ATTN_EXT || op->op == GGML_OP_MUL_MAT) {
            const bool is_weight = precision != 0 && op->op == GGML_OP_MUL_MAT && aim_is_weight(op->src[0]);
            op->op_params[AIM_MARK_AT] = precision | (is_weight ? AIM_MARK_WEIGHT : 0);
        }
    }
}
