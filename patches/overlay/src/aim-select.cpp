#include "aim-select.h"

#include <algorithm>
#include <numeric>
#include <random>

std::vector<int32_t> aim_select_top(const std::vector<float> & importance, int32_t n_keep) {
    std::vector<int32_t> res(importance.size());
    std::iota(res.begin(), res.end(), 0);

    const auto higher = [&](int32_t a, int32_t b) {
        return importance[a] != importance[b] ? importance[a] > importance[b] : a < b;
    };

    std::nth_element(res.begin(), res.begin() + n_keep, res.end(), higher);
    res.resize(n_keep);
    std::sort(res.begin(), res.end());

    return res;
}

std::vector<int32_t> aim_select_grid(int32_t n, int32_t n_keep) {
    std::vector<int32_t> res(n_keep);

    for (int32_t i = 0; i < n_keep; ++i) {
        // the middle of the i-th of n_keep equal parts
        res[i] = int32_t((int64_t(2)*i + 1)*n/(int64_t(2)*n_keep));
    }

    return res;
}

std::vector<int32_t> aim_select_random(int32_t n, int32_t n_keep, uint32_t seed, int32_t il) {
    std::mt19937_64 rng((uint64_t(seed) << 32) | uint32_t(il));

    std::vector<int32_t> res(n);
    std::iota(res.begin(), res.end(), 0);

    // the first n_keep of a shuffle; std::shuffle differs between standard libraries
    for (int32_t i = 0; i < n_keep; ++i) {
        std::swap(res[i], res[i + int32_t(rng() % uint64_t(n - i))]);
    }

    res.resize(n_keep);
    std::sort(res.begin(), res.end());

    return res;
}
