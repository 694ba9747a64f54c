// the two layers of LLaVA's projector alone, on rows that come from outside: pooled or merged before they are projected
#pragma once

#include "aim-clip.h"

#include <cstdint>
#include <vector>

// rows [n, n_embd of the tower] -> out [n, n_embd of the text], on the backends that hold the weights; false where they failed
bool aim_project(const clip_model & model, const std::vector<ggml_backend_t> & backends, const float * rows, int32_t n, int32_t n_threads, float * out);
