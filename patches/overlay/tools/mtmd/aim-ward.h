// clustering by Ward's criterion: each step joins the two clusters whose joining adds least to the sum of squared distances
// between rows and the mean of their cluster
// ref: Ward 1963; the recurrence between clusters, Lance and Williams 1967
// knows rows only: no frames, no ggml, no threads of ggml's. so it can also be called from inside a graph (an op of ours)
#pragma once

#include <cstdint>
#include <vector>

// most rows in one clustering: all their distances are held, n x n doubles (2 GiB)
constexpr int32_t AIM_WARD_MAX_ROWS = 16384;

struct aim_ward_input {
    const float * rows;                // [n, n_embd]
    int32_t       n;
    int32_t       n_embd;
    const float * weight    = nullptr; // [n] how many patches each row stands for already; null: one each
    int32_t       n_threads = 1;       // used where there is much to do; the result does not depend on it
};

// the cluster of each row, [n]: 0 .. n_clusters - 1 in the order of their lowest rows. of equal costs the pair with the
// lower rows is joined, so that the result is a function of the input alone
// throws aim_error: AIM_STATUS_INVALID for sizes, weights and rows that cannot be (values that are not finite)
std::vector<int32_t> aim_ward_cluster(const aim_ward_input & in, int32_t n_clusters);

// means of the clusters, [n_clusters, n_embd], each member with its weight
std::vector<double> aim_ward_means(const aim_ward_input & in, const std::vector<int32_t> & owner, int32_t n_clusters);

// the member nearest to its cluster's mean, [n_clusters]; the lowest of equal ones
std::vector<int32_t> aim_ward_medoids(const aim_ward_input & in, const std::vector<int32_t> & owner, const std::vector<double> & means);
