// attention of many queries as two matrix products with a float softmax between them: for FLASH_ATTN_EXT nodes that are
// marked; ggml computes all others

#include "aim-traits.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"

#include <algorithm>
#include <cmath>
#include <cstring>

constexpr int64_t MIN_QUERIES = 16; // below it packing the keys costs more than the products save
constexpr int64_t Q_ROWS      = 32; // queries in one unit of work
constexpr int64_t KEYS        = 64; // keys packed in one unit
constexpr int64_t V_COLUMNS   = 32; // columns of v packed in one unit; a block of any quantised type

static float param(const ggml_tensor * op, int i) {
    float value;
    memcpy(&value, op->op_params + i, sizeof(float));
    return value;
}

static bool is_readable(const ggml_tensor * t) { // row by row, as floats
    return t->nb[0] == ggml_type_size(t->type) && (t->type == GGML_TYPE_F32 || ggml_get_type_traits(t->type)->to_float);
}

static bool can_compute(const ggml_tensor * op) {
    const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3];
    const float max_bias = param(op, 1), softcap = param(op, 2);
    return aim_marked(op) && aim_kernels_in_use() && q->ne[1] >= MIN_QUERIES && op->src[4] == nullptr
        && max_bias == 0 && softcap == 0 && q->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) && is_readable(k) && is_readable(v)
        && op->type == GGML_TYPE_F32 && op->nb[0] == sizeof(float) && (mask == nullptr || (mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(ggml_fp16_t)))
        && (!ggml_is_quantized(v->type) || v->ne[0] % V_COLUMNS == 0);
}

struct attention_traits : ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override;
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override;
};

ggml::cpu::tensor_traits * aim_attention_traits(const ggml_tensor * op) {
    static attention_traits traits;
    return can_compute(op) ? &traits : nullptr;
}

// shapes: q [d, n_q, n_head, n_seq], k [d, n_kv, n_head_kv, n_seq], v [dv, n_kv, n_head_kv, n_seq], dst [dv, n_head, n_q, n_seq]
struct attention {
    const ggml_tensor * q, * k, * v, * mask;
    const ggml_tensor * dst;
    const aim_kernels & kernels;
    aim_pack            type;
    int64_t d, dv, n_q, n_kv, n_head, n_head_kv, n_seq;
    int64_t d_padded, kv_padded; // elements along k of the two products
    size_t  k_row, v_row;        // bytes of a packed key, and of a packed column of v
    int64_t k_blocks, v_blocks;  // of 16 columns

    // k and v may be what op's own were rounded from
    attention(const ggml_tensor * op, const ggml_tensor * k, const ggml_tensor * v) : q(op->src[0]), k(k), v(v), mask(op->src[3]), dst(op),
        kernels(*aim_kernels_in_use()), type(kernels.wide), d(q->ne[0]), dv(v->ne[0]), n_q(q->ne[1]), n_kv(k->ne[1]), n_head(q->ne[2]),
        n_head_kv(k->ne[2]), n_seq(q->ne[3]), d_padded(aim_k_padded(type, d)), kv_padded(aim_k_padded(type, n_kv)),
        k_row(d_padded*aim_element_size(type)), v_row(kv_padded*aim_element_size(type)), k_blocks((n_kv + 15)/16), v_blocks((dv + 15)/16) {}

    int64_t n_sets() const { return n_head_kv*k->ne[3]; } // pairs of packed k and v
    size_t k_set() const { return k_blocks*16*k_row; }
    size_t v_set() const { return v_blocks*16*v_row; }
    bool    is_quantised(const ggml_tensor * t) const { return t->type != GGML_TYPE_F32 && t->type != GGML_TYPE_F16; }
    int64_t value_floats() const { return std::max(is_quantised(k) ? 16*d : 0, is_quantised(v) ? V_COLUMNS*n_kv : 0); }
    int64_t work_floats() const { return std::max(d_padded, kv_padded) + 64; }
    size_t  thread_bytes() const {
        return (value_floats() + work_floats() + Q_ROWS*kv_padded + 2*Q_ROWS)*sizeof(float) + (16 + Q_ROWS)*k_row + Q_ROWS*v_row + 8*64;
    }

    size_t bytes(int n_threads) const {
        const size_t scales = n_sets()*16*(k_blocks + v_blocks)*(sizeof(float) + sizeof(int32_t));
        return n_sets()*(k_set() + v_set()) + scales + n_threads*thread_bytes() + 1024;
    }
};

bool attention_traits::work_size(int n_threads, const ggml_tensor * op, size_t & size) {
    size = attention(op, op->src[1], op->src[2]).bytes(n_threads);
    return true;
}

static const char * row_of(const ggml_tensor * t, int64_t i1, int64_t i2, int64_t i3) {
    return (const char *) t->data + i1*t->nb[1] + i2*t->nb[2] + i3*t->nb[3];
}

struct thread_scratch {
    float *   values; // rows of a quantised type as floats
    float *   work;
    float *   scores; // [Q_ROWS][kv_padded]
    float *   q_scales, * p_scales;
    uint8_t * packed; // 16 packed rows, to interleave
    uint8_t * q, * p;

    thread_scratch(const attention & a, aim_arena & arena) :
        values(arena.take<float>(a.value_floats())), work(arena.take<float>(a.work_floats())), scores(arena.take<float>(Q_ROWS*a.kv_padded)),
        q_scales(arena.take<float>(Q_ROWS)), p_scales(arena.take<float>(Q_ROWS)),
        packed(arena.take<uint8_t>(16*a.k_row)), q(arena.take<uint8_t>(Q_ROWS*a.k_row)), p(arena.take<uint8_t>(Q_ROWS*a.v_row)) {}
};

// n elements from i0 on of `rows` rows; of a quantised type as floats in buffer
static aim_source source_of(const ggml_tensor * t, int64_t row, int64_t rows, int64_t i0, int64_t n, int64_t head, int64_t seq, float * buffer) {
    const char * data = row_of(t, row, head, seq);
    if (t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16) {
        return { data + i0*t->nb[0], t->nb[1], t->type == GGML_TYPE_F16 };
    }
    for (int64_t i = 0; i < rows; i++) {
        ggml_get_type_traits(t->type)->to_float(data + i*t->nb[1] + ggml_row_size(t->type, i0), buffer + i*n, n);
    }
    return { (const char *) buffer, n*sizeof(float), false };
}

// 16 keys as a column block
static void pack_keys(const attention & a, int64_t head, int64_t seq, int64_t block, uint8_t * dst, float * scales, int32_t * sums, thread_scratch & t) {
    const int64_t n = std::min<int64_t>(16, a.n_kv - 16*block);
    aim_source keys = source_of(a.k, 16*block, n, 0, a.d, head, seq, t.values);
    for (int64_t i = 0; i < n; i++, keys.data += keys.stride) {
        a.kernels.pack_column(a.type, keys, a.d, a.d_padded, t.packed + i*a.k_row, scales + i, sums + i, t.work);
    }
    for (int64_t i = n; i < 16; i++) {
        memset(t.packed + i*a.k_row, 0, a.k_row);
        scales[i] = 0;
        sums[i]   = 0;
    }
    aim_interleave(t.packed, a.k_row, dst);
}

// columns c0 to c1 of v, each over all keys
static void pack_values(const attention & a, int64_t head, int64_t seq, int64_t c0, int64_t c1, uint8_t * set, float * scales, thread_scratch & t) {
    aim_source rows = source_of(a.v, 0, a.n_kv, c0, c1 - c0, head, seq, t.values);
    for (int64_t c = c0; c < c1; c += 16, rows.data += 16*(rows.half ? 2 : 4)) {
        a.kernels.pack_columns(a.type, rows, a.n_kv, a.kv_padded, (int) std::min<int64_t>(16, c1 - c), set + c*a.v_row, scales + c);
    }
}

// keys that any of the queries may see: all before the result
static int64_t visible_keys(const attention & a, int64_t q0, int64_t q1, int64_t head, int64_t seq) {
    if (a.mask == nullptr) {
        return a.n_kv;
    }
    int64_t n = 0;
    for (int64_t i = q0; i < q1; i++) {
        const ggml_fp16_t * row = (const ggml_fp16_t *) row_of(a.mask, i, head % a.mask->ne[2], seq % a.mask->ne[3]);
        int64_t last = a.n_kv;
        while (last > n && row[last - 1] == 0xfc00) { // -inf
            last--;
        }
        n = std::max(n, last);
    }
    return n;
}

static void attend(const attention & a, int64_t q0, int64_t head, int64_t seq, aim_operand keys, aim_operand values, float scale, thread_scratch & t) {
    const int64_t n = std::min(Q_ROWS, a.n_q - q0), n_keys = visible_keys(a, q0, q0 + n, head, seq);
    const int64_t keys_padded = aim_k_padded(a.type, n_keys);
    const size_t  q_chunk = a.kernels.tiled ? 1024 : 64;
    auto row_at = [&](uint8_t * rows, size_t bytes, int64_t i) { return a.kernels.tiled ? rows + i/16*16*bytes + i%16*64 : rows + i*bytes; };

    for (int64_t i = 0; i < n; i++) {
        a.kernels.pack_row(a.type, { row_of(a.q, q0 + i, head, seq), 0, false }, a.d, a.d_padded, row_at(t.q, a.k_row, i), q_chunk, t.q_scales + i, t.work);
    }
    aim_out out = {};
    out.dst        = t.scores;
    out.dst_stride = a.kv_padded;
    out.n          = (int32_t) n_keys;
    out.has_room   = true;
    const aim_operand queries = { t.q, a.k_row, a.type == AIM_PACK_BF16 ? nullptr : t.q_scales, nullptr };
    a.kernels.gemm(a.type, queries, keys, a.k_row, 0, n, 0, (n_keys + 15)/16, &out);

    for (int64_t i = 0; i < n; i++) {
        const uint16_t * mask = a.mask ? (const uint16_t *) row_of(a.mask, q0 + i, head % a.mask->ne[2], seq % a.mask->ne[3]) : nullptr;
        t.p_scales[i] = a.kernels.softmax(a.type, t.scores + i*a.kv_padded, mask, scale, n_keys, keys_padded, row_at(t.p, a.v_row, i), q_chunk, t.work);
    }
    out = {};
    out.dst        = (float *) ((char *) a.dst->data + head*a.dst->nb[1] + q0*a.dst->nb[2] + seq*a.dst->nb[3]);
    out.dst_stride = a.dst->nb[2]/sizeof(float);
    out.n          = (int32_t) a.dv;
    const aim_operand weights = { t.p, a.v_row, t.p_scales, nullptr };
    a.kernels.gemm(a.type, weights, values, keys_padded*aim_element_size(a.type), 0, n, 0, a.v_blocks, &out);
}

static void compute(const attention & a, float scale, ggml_compute_params * params) {
    aim_arena arena(params->wdata);
    uint8_t * keys     = arena.take<uint8_t>(a.n_sets()*a.k_set());
    uint8_t * values   = arena.take<uint8_t>(a.n_sets()*a.v_set());
    float *   k_scales = arena.take<float>(a.n_sets()*a.k_blocks*16);
    float *   v_scales = arena.take<float>(a.n_sets()*a.v_blocks*16);
    int32_t * k_sums   = arena.take<int32_t>(a.n_sets()*a.k_blocks*16);
    for (int i = 0; i < params->ith; i++) {
        thread_scratch(a, arena); // of the threads before this one
    }
    thread_scratch t(a, arena);

    aim_units units(params);
    const int64_t k_units = (a.n_kv + KEYS - 1)/KEYS, v_units = (a.dv + V_COLUMNS - 1)/V_COLUMNS;
    units.share(a.n_sets()*(k_units + v_units), [&](int64_t unit) {
        const int64_t set = unit/(k_units + v_units), part = unit%(k_units + v_units), head = set%a.n_head_kv, seq = set/a.n_head_kv;
        if (part < v_units) {
            const int64_t c0 = part*V_COLUMNS;
            pack_values(a, head, seq, c0, std::min(c0 + V_COLUMNS, a.dv), values + set*a.v_set(), v_scales + set*a.v_blocks*16, t);
            return;
        }
        const int64_t b0 = (part - v_units)*KEYS/16;
        for (int64_t b = b0; b < std::min(b0 + KEYS/16, a.k_blocks); b++) {
            const int64_t at = set*a.k_blocks*16 + 16*b;
            pack_keys(a, head, seq, b, keys + set*a.k_set() + 16*b*a.k_row, k_scales + at, k_sums + at, t);
        }
    });

    const int64_t q_units = (a.n_q + Q_ROWS - 1)/Q_ROWS;
    const bool    scaled  = a.type != AIM_PACK_BF16;
    a.kernels.begin();
    // head by head, whose keys stay in the cache; the last queries first: with a causal mask they take longest
    units.finish(q_units*a.n_head*a.n_seq, [&](int64_t unit) {
        const int64_t q_unit = q_units - 1 - unit%q_units, head = unit/q_units%a.n_head, seq = unit/q_units/a.n_head;
        const int64_t set  = head/(a.n_head/a.n_head_kv) + seq/(a.n_seq/a.k->ne[3])*a.n_head_kv;
        attend(a, q_unit*Q_ROWS, head, seq,
               { keys   + set*a.k_set(), a.k_row, scaled ? k_scales + set*a.k_blocks*16 : nullptr, k_sums + set*a.k_blocks*16 },
               { values + set*a.v_set(), a.v_row, scaled ? v_scales + set*a.v_blocks*16 : nullptr, nullptr }, scale, t);
    });
    a.kernels.end();
}

bool attention_traits::compute_forward(ggml_compute_params * params, ggml_tensor * op) {
    compute(attention(op, op->src[1], op->src[2]), param(op, 0), params);
    return true;
}

static bool is_rounding(const ggml_cgraph * graph, int i) {
    const ggml_tensor * node = graph->nodes[i];
    return node->op == GGML_OP_CPY && node->type == GGML_TYPE_F16 && node->src[0]->type == GGML_TYPE_F32 && is_readable(node->src[0])
        && (node->flags & GGML_TENSOR_FLAG_COMPUTE) && ggml_node_has_n_uses(graph, i, 1) && ggml_are_same_shape(node, node->src[0]);
}

// a tower's graph rounds k and v to half floats just for this node
int aim_fused_attention(const ggml_cgraph * graph, int i, ggml_compute_params * params) {
    if (i + 2 >= graph->n_nodes || !is_rounding(graph, i) || !is_rounding(graph, i + 1)) {
        return 0;
    }
    const ggml_tensor * k = graph->nodes[i], * v = graph->nodes[i + 1], * op = graph->nodes[i + 2];
    if (op->op != GGML_OP_FLASH_ATTN_EXT || op->src[1] != k || op->src[2] != v || !can_compute(op)) {
        return 0;
    }
    compute(attention(op, k->src[0], v->src[0]), param(op, 0), params);
    return 2;
}
