// which nodes of a graph our CPU kernels compute: a number among the node's parameters, behind those of ggml. It goes to
// another machine with the node (ggml-rpc), so the one who asks says how a server's CPU computes
#pragma once

#include "ggml-impl.h"

constexpr int AIM_MARK_AT = 15; // products have 2 parameters of ggml's, attention 5
static_assert(GGML_MAX_OP_PARAMS >= (AIM_MARK_AT + 1)*sizeof(int32_t), "room for the mark");

inline void aim_mark_nodes(ggml_cgraph * graph, int32_t precision) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i]->op == GGML_OP_FLASH_ATTN_EXT || graph->nodes[i]->op == GGML_OP_MUL_MAT) {
            graph->nodes[i]->op_params[AIM_MARK_AT] = precision;
        }
    }
}
