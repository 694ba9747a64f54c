// prefill's matrix products and attention with kernels of our own: what ggml-cpu's hooks call
#pragma once

#include "ggml.h"

#include <stddef.h>
#include <stdint.h>

struct ggml_cgraph;
struct ggml_compute_params;

#ifdef __cplusplus
extern "C" {
#endif

// computes the nodes that begin with node_n and that our kernels take together; how many follow the first, 0 if none do
int aim_fused(const struct ggml_cgraph * cgraph, int node_n, const struct ggml_compute_params * params);

// of a backend that was told no precision: it computes each node as the node says
#define AIM_PRECISION_AS_MARKED (-1)

// what a backend's precision means for the nodes of a graph, before it is planned
void aim_mark_graph(struct ggml_cgraph * cgraph, int32_t precision);

// by name: the functions that libllama and libmtmd find through the backend's registry (declared in aim-cpu.h)
void * aim_proc_address(const char * name);

#ifdef __cplusplus
}

#include "ggml-backend.h"

#include <vector>

// in ggml-cpu.cpp, where a backend's own data is known
void aim_set_precision(ggml_backend_t cpu, int32_t precision);

void aim_add_buffer_types(std::vector<ggml_backend_buffer_type_t> & bufts);
#endif
