// what a CPU backend's precision means for the nodes of a graph

#include "aim-mark.h"
#include "aim-traits.h"

void aim_mark_graph(ggml_cgraph * graph, int32_t precision) {
    if (precision != AIM_PRECISION_AS_MARKED) {
        aim_mark_nodes(graph, precision);
    }
}

bool aim_marked(const ggml_tensor * op) { return op->op_params[AIM_MARK_AT] != AIM_PRECISION_EXACT; }

bool aim_marked_weight(const ggml_tensor * op) { return op->op_params[AIM_MARK_AT] & AIM_MARK_WEIGHT; }
