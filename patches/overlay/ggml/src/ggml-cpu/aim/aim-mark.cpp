// which nodes of a graph our kernels compute: a number among the node's parameters, behind those of ggml

#include "aim-traits.h"

#include "ggml-impl.h"

constexpr int MARK_AT = 15; // products have 2 parameters of ggml's, attention 5
static_assert(GGML_MAX_OP_PARAMS >= (MARK_AT + 1)*sizeof(int32_t), "room for the mark");

void aim_mark_graph(ggml_cgraph * graph, int32_t precision) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i]->op == GGML_OP_FLASH_ATTN_EXT || graph->nodes[i]->op == GGML_OP_MUL_MAT) {
            graph->nodes[i]->op_params[MARK_AT] = precision;
        }
    }
}

bool aim_marked(const ggml_tensor * op) { return op->op_params[MARK_AT] != AIM_PRECISION_EXACT; }
