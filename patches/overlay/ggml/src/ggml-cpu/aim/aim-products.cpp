// products of one input with one or more packed weights, and the nodes around them: the norm in front, bias, activation,
// scale and residual behind

#include "aim-traits.h"

#include "ggml-impl.h"

#include <algorithm>
#include <cstring>

aim_units::aim_units(ggml_compute_params * params) : params(params), mine(params->ith) {
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    wait();
}

int64_t aim_units::next() { return ggml_threadpool_chunk_add(params->threadpool, 1); }

void aim_units::wait() { ggml_barrier(params->threadpool); }

// --- which nodes -----------------------------------------------------------------------------------------------------

constexpr int MAX_PRODUCTS = 3; // q, k and v

struct product_group {
    const ggml_tensor * x = nullptr;                  // [k, ...]; what enters the norm where there is one
    bool                has_norm = false, rms = false;
    float               eps = 0;
    const float *       gamma = nullptr;
    const float *       beta  = nullptr;
    int                 n = 0;
    const ggml_tensor * weights[MAX_PRODUCTS] = {};
    aim_out             out[MAX_PRODUCTS] = {};
    int                 last = 0;                     // index of the last node
};

static bool has_rows(const ggml_tensor * t) { // of floats, one after the other
    return t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float) && t->nb[2] == t->nb[1]*t->ne[1] && t->nb[3] == t->nb[2]*t->ne[2];
}

static bool is_vector(const ggml_tensor * t, int64_t n) {
    return t && t->type == GGML_TYPE_F32 && t->ne[0] == n && ggml_nelements(t) == n && t->nb[0] == sizeof(float);
}

// the node after i that computes anything; n_nodes if there is none
static int following(const ggml_cgraph * graph, int i) {
    for (i++; i < graph->n_nodes && ggml_op_is_empty(graph->nodes[i]->op); i++) {}
    return i;
}

// the operand of an elementwise node that is not `cur`; null if cur is not one
static const ggml_tensor * other_operand(const ggml_tensor * node, const ggml_tensor * cur) {
    return node->src[0] == cur ? node->src[1] : node->src[1] == cur && ggml_are_same_shape(node, cur) ? node->src[0] : nullptr;
}

// the step i -> j: node j does `op` to node i's result, which nobody else needs; its other operand
static const ggml_tensor * takes(const ggml_cgraph * graph, int i, int j, ggml_op op) {
    if (j >= graph->n_nodes || graph->nodes[j]->op != op || !(graph->nodes[j]->flags & GGML_TENSOR_FLAG_COMPUTE) || !ggml_node_has_n_uses(graph, i, 1)) {
        return nullptr;
    }
    const ggml_tensor * node = graph->nodes[j];
    return ggml_are_same_shape(node, graph->nodes[i]) && has_rows(node) ? other_operand(node, graph->nodes[i]) : nullptr;
}

static aim_act act_of(const ggml_cgraph * graph, int i, int j) {
    if (j >= graph->n_nodes || graph->nodes[j]->op != GGML_OP_UNARY || graph->nodes[j]->src[0] != graph->nodes[i] || !has_rows(graph->nodes[j])
        || !ggml_node_has_n_uses(graph, i, 1)) {
        return AIM_ACT_NONE;
    }
    switch (ggml_get_unary_op(graph->nodes[j])) {
        case GGML_UNARY_OP_GELU:       return AIM_ACT_GELU;
        case GGML_UNARY_OP_GELU_ERF:   return AIM_ACT_GELU_ERF;
        case GGML_UNARY_OP_GELU_QUICK: return AIM_ACT_GELU_QUICK;
        case GGML_UNARY_OP_SILU:       return AIM_ACT_SILU;
        case GGML_UNARY_OP_RELU:       return AIM_ACT_RELU;
        default:                       return AIM_ACT_NONE;
    }
}

static bool apart(const ggml_tensor * a, const ggml_tensor * b) {
    const char * a0 = (const char *) a->data, * b0 = (const char *) b->data;
    return a0 + ggml_nbytes(a) <= b0 || b0 + ggml_nbytes(b) <= a0;
}

// a residual is read where the result is written, element by element: it may be the same memory, but not a part of it
static bool may_add(const ggml_tensor * residual, const ggml_tensor * dst) {
    return has_rows(residual) && ggml_are_same_shape(residual, dst) && (apart(residual, dst) || (residual->data == dst->data && residual->nb[1] == dst->nb[1]));
}

// the product at node i and what follows it; returns the last node's index
static int match_product(const ggml_cgraph * graph, int i, product_group & group) {
    const ggml_tensor * mm = graph->nodes[i];
    aim_out & out = group.out[group.n];
    const int64_t n = mm->ne[0];
    out = {};
    int j = following(graph, i);
    if (const ggml_tensor * bias = takes(graph, i, j, GGML_OP_ADD); is_vector(bias, n)) {
        out.bias = (const float *) bias->data;
        i = j;
        j = following(graph, i);
    }
    out.act = act_of(graph, i, j);
    if (out.act != AIM_ACT_NONE) {
        i = j;
        j = following(graph, i);
    }
    if (const ggml_tensor * gamma = takes(graph, i, j, GGML_OP_MUL); is_vector(gamma, n)) {
        out.gamma = (const float *) gamma->data;
        i = j;
        j = following(graph, i);
    }
    if (const ggml_tensor * residual = takes(graph, i, j, GGML_OP_ADD); residual && may_add(residual, graph->nodes[j])) {
        out.residual        = (const float *) residual->data;
        out.residual_stride = residual->nb[1] / sizeof(float);
        i = j;
    }
    out.dst        = (float *) graph->nodes[i]->data;
    out.dst_stride = graph->nodes[i]->nb[1] / sizeof(float);
    out.n          = (int32_t) n;
    group.weights[group.n++] = mm->src[0];
    return i;
}

static bool is_product(const ggml_tensor * node) {
    return node->op == GGML_OP_MUL_MAT && aim_packing_of(node->src[0]) && (node->flags & GGML_TENSOR_FLAG_COMPUTE) && has_rows(node) && has_rows(node->src[1]);
}

// products from node i on that read the same rows in the same packing
static void match_products(const ggml_cgraph * graph, int i, product_group & group) {
    const ggml_tensor * x = graph->nodes[i]->src[1];
    const aim_packing * packing = aim_packing_of(graph->nodes[i]->src[0]);
    while (group.n < MAX_PRODUCTS && i < graph->n_nodes && is_product(graph->nodes[i]) && graph->nodes[i]->src[1] == x
           && aim_packing_of(graph->nodes[i]->src[0]) == packing) {
        group.last = match_product(graph, i, group);
        i = following(graph, group.last);
    }
}

// a norm whose result goes to the products of one group only
static bool match_norm(const ggml_cgraph * graph, int i, product_group & group) {
    const ggml_tensor * norm = graph->nodes[i];
    const int64_t n = norm->ne[0];
    if (!(norm->flags & GGML_TENSOR_FLAG_COMPUTE) || !has_rows(norm->src[0])) {
        return false;
    }
    group.has_norm = true;
    group.rms      = norm->op == GGML_OP_RMS_NORM;
    memcpy(&group.eps, norm->op_params, sizeof(float));
    int j = following(graph, i);
    if (const ggml_tensor * gamma = takes(graph, i, j, GGML_OP_MUL); is_vector(gamma, n)) {
        group.gamma = (const float *) gamma->data;
        i = j;
        j = following(graph, i);
    }
    if (const ggml_tensor * beta = takes(graph, i, j, GGML_OP_ADD); is_vector(beta, n)) {
        group.beta = (const float *) beta->data;
        i = j;
        j = following(graph, i);
    }
    if (j >= graph->n_nodes || !is_product(graph->nodes[j]) || graph->nodes[j]->src[1] != graph->nodes[i]) {
        return false;
    }
    match_products(graph, j, group);
    return ggml_node_has_n_uses(graph, i, group.n);
}

// --- computing them --------------------------------------------------------------------------------------------------

struct sizes {
    int64_t m, m_padded, k_padded;
    size_t  k_bytes;

    sizes(const ggml_tensor * x, aim_pack type) : m(ggml_nrows(x)), m_padded(aim_up(m, 32)), k_padded(aim_k_padded(type, x->ne[0])),
        k_bytes(k_padded * aim_element_size(type)) {}

    // one thread's: a normed row, and one to pack from
    size_t work() const { return 2*(k_padded + 64); }
    size_t bytes(int n_threads) const { return m_padded*(k_bytes + sizeof(float)) + n_threads*(work()*sizeof(float) + 64) + 256; }
};

bool aim_packing::work_size(int n_threads, const ggml_tensor * op, size_t & size) {
    size = sizes(op->src[1], type).bytes(n_threads);
    return true;
}

static void run(const product_group & group, ggml_compute_params * params) {
    const aim_packing & packing = *aim_packing_of(group.weights[0]);
    const aim_kernels & kernels = *packing.kernels;
    const sizes         size(group.x, packing.type);

    aim_arena arena(params->wdata);
    uint8_t * a      = arena.take<uint8_t>(size.m_padded*size.k_bytes);
    float *   scales = arena.take<float>(size.m_padded);
    float *   normed = arena.take<float>(params->nth*size.work()) + params->ith*size.work();
    float *   work   = normed + size.k_padded + 64;

    aim_units units(params);
    units.share((size.m + 15)/16, [&](int64_t tile) {
        for (int64_t m = 16*tile; m < std::min(16*tile + 16, size.m); m++) {
            const float * row = (const float *) ((const char *) group.x->data + m*group.x->nb[1]);
            if (group.has_norm) {
                kernels.norm(row, group.x->ne[0], group.eps, group.rms, group.gamma, group.beta, normed);
                row = normed;
            }
            uint8_t * dst = kernels.tiled ? a + tile*16*size.k_bytes + m%16*64 : a + m*size.k_bytes;
            kernels.pack_row(packing.type, { (const char *) row, 0, false }, group.x->ne[0], size.k_padded, dst, kernels.tiled ? 1024 : 64, scales + m, work);
        }
    });

    // rows of A that stay in the second-level cache while columns pass by
    constexpr int64_t A_BYTES = 1 << 20, BLOCKS = 8;
    const int64_t m_parts = (size.m*(int64_t) size.k_bytes + A_BYTES - 1)/A_BYTES;
    const int64_t m_step  = aim_up((size.m + m_parts - 1)/m_parts, 32);
    const int64_t n_m     = (size.m + m_step - 1)/m_step;
    aim_weight w[MAX_PRODUCTS];
    int64_t    n_blocks[MAX_PRODUCTS], total = 0;
    for (int i = 0; i < group.n; i++) {
        w[i] = aim_weight_of(group.weights[i]);
        n_blocks[i] = (w[i].n + 16*BLOCKS - 1)/(16*BLOCKS);
        total += n_blocks[i];
    }
    const aim_operand rows = { a, size.k_bytes, packing.type == AIM_PACK_BF16 ? nullptr : scales, nullptr };
    kernels.begin();
    units.finish(n_m*total, [&](int64_t unit) {
        const int64_t m0 = unit/total*m_step;
        int64_t part = unit%total;
        int i = 0;
        for (; part >= n_blocks[i]; i++) {
            part -= n_blocks[i];
        }
        kernels.gemm(packing.type, rows, w[i].operand, size.k_bytes, m0, std::min(m0 + m_step, size.m),
                     part*BLOCKS, std::min((part + 1)*BLOCKS, (w[i].n + 15)/16), &group.out[i]);
    });
    kernels.end();
}

bool aim_packing::compute_forward(ggml_compute_params * params, ggml_tensor * op) {
    product_group group;
    group.x = op->src[1];
    group.n = 1;
    group.weights[0] = op->src[0];
    group.out[0]     = {};
    group.out[0].dst = (float *) op->data;
    group.out[0].dst_stride = op->nb[1] / sizeof(float);
    group.out[0].n   = (int32_t) op->ne[0];
    GGML_ASSERT(has_rows(op) && has_rows(op->src[1]));
    run(group, params);
    return true;
}

int aim_fused(const ggml_cgraph * graph, int node_n, const ggml_compute_params * params) {
    const ggml_tensor * node = graph->nodes[node_n];
    if (node->op == GGML_OP_CPY) {
        return aim_fused_attention(graph, node_n, const_cast<ggml_compute_params *>(params));
    }
    product_group group;
    if (node->op == GGML_OP_NORM || node->op == GGML_OP_RMS_NORM) {
        if (!match_norm(graph, node_n, group)) {
            return 0;
        }
        group.x = node->src[0];
    } else if (is_product(node)) {
        match_products(graph, node_n, group);
        group.x = node->src[1];
    }
    if (group.last <= node_n) {
        return 0;
    }
    run(group, const_cast<ggml_compute_params *>(params));
    return group.last - node_n;
}
