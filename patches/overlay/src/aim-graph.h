// the call sites in upstream's graphs: which layers a graph runs, and which stage's cache a layer attends to
// everything here is a no-op for a context without a staged KV cache
#pragma once

#include "llama-graph.h"

struct aim_layers {
    int begin;
    int end;
};

// the layers to build: all of them unless a part of the model is being prefilled
aim_layers aim_graph_layers(const llm_graph_context & graph);

// writes the rows that left the first stage to where the memory holds them, and
// ends a graph whose layers stop before the model's last one: its hidden states become the output
bool aim_graph_end(const llm_graph_context & graph, ggml_tensor * cur);

// the rotary ids of a graph's rows, nullptr without a staged KV cache and where a position is the id
ggml_tensor * aim_build_inp_pos(const llm_graph_context & graph);

// attention inputs of every stage in the graph, nullptr without a staged KV cache
llm_graph_input_attn_kv * aim_build_attn_inp(const llm_graph_context & graph);

// the attention input of the stage that layer il belongs to, inp itself without a staged KV cache
llm_graph_input_attn_kv * aim_attn_inp(llm_graph_input_attn_kv * inp, int il);

// gives the queries of a scored layer out as the graph's output "aim_q", [n_embd_head, n_tokens, n_head], and writes those of the
// first stage's last layer to where the memory holds them
void aim_export_q(const llm_graph_context & graph, ggml_tensor * q, int il);

#define AIM_TENSOR_Q "aim_q"
