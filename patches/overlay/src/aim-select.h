// which visual rows stay: pure functions of scores and counts, sorted indices into the rows given
#pragma once

#include <cstdint>
#include <vector>

// the n_keep highest scores; of equal scores the earlier row stays
std::vector<int32_t> aim_select_top(const std::vector<float> & importance, int32_t n_keep);

// evenly spaced
std::vector<int32_t> aim_select_grid(int32_t n, int32_t n_keep);

// the same rows for the same seed and layer on every platform
std::vector<int32_t> aim_select_random(int32_t n, int32_t n_keep, uint32_t seed, int32_t il);
