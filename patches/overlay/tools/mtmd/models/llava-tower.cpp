#include "llava-tower.h"

// hook: clip_ctx is defined in clip.cpp only
const aim_tower_merge & aim_clip_merging(const clip_ctx * ctx);

static thread_local aim_tower_output given = AIM_TOWER_PROJECTED;

aim_tower_gives::aim_tower_gives(aim_tower_output output) { given = output; }
aim_tower_gives::~aim_tower_gives() { given = AIM_TOWER_PROJECTED; }

clip_graph_llava_tower::clip_graph_llava_tower(clip_ctx * ctx, const clip_image_f32 & img) : clip_graph(ctx, img), merging(aim_clip_merging(ctx)) {}

ggml_tensor * clip_graph_llava_tower::build_patches() const {
    ggml_tensor * pixels = ggml_new_tensor_4d(ctx0, GGML_TYPE_F32, img.nx(), img.ny(), 3, 1);
    ggml_set_name(pixels, "inp_raw");
    ggml_set_input(pixels);

    ggml_tensor * kernel = model.patch_embeddings_0;                                               // [p, p, 3, n_embd]
    ggml_tensor * cur = ggml_im2col(ctx0, kernel, pixels, patch_size, patch_size, 0, 0, 1, 1, true, GGML_TYPE_F32);
    cur = ggml_reshape_2d(ctx0, cur, cur->ne[0], n_patches);                                       // [p*p*3, n_patches]
    cur = ggml_mul_mat(ctx0, ggml_reshape_2d(ctx0, kernel, kernel->ne[0]*kernel->ne[1]*kernel->ne[2], n_embd), cur);
    return model.patch_bias ? ggml_add(ctx0, cur, model.patch_bias) : cur;                         // [n_embd, n_patches]
}

// what clip_graph::build_vit builds for a layer of these towers
ggml_tensor * clip_graph_llava_tower::build_layer(ggml_tensor * inp, int il, ggml_tensor * mask) const {
    const clip_layer & layer = model.layers[il];
    const int64_t n = inp->ne[1];
    auto linear = [&](ggml_tensor * w, ggml_tensor * b, ggml_tensor * x) {
        x = build_mm(w, x);
        return b ? ggml_add(ctx0, x, b) : x;
    };
    ggml_tensor * cur = build_norm(inp, layer.ln_1_w, layer.ln_1_b, NORM_TYPE_NORMAL, eps, il);
    ggml_tensor * q = ggml_reshape_4d(ctx0, linear(layer.q_w, layer.q_b, cur), d_head, n_head,    n, 1);
    ggml_tensor * k = ggml_reshape_4d(ctx0, linear(layer.k_w, layer.k_b, cur), d_head, n_head_kv, n, 1);
    ggml_tensor * v = ggml_reshape_4d(ctx0, linear(layer.v_w, layer.v_b, cur), d_head, n_head_kv, n, 1);
    cur = build_attn(layer.o_w, layer.o_b, q, k, v, mask, kq_scale, il);
    inp = ggml_add(ctx0, cur, inp);
    cur = build_norm(inp, layer.ln_2_w, layer.ln_2_b, NORM_TYPE_NORMAL, eps, il);
    cur = build_ffn(cur, layer.ff_up_w, layer.ff_up_b, nullptr, nullptr, layer.ff_down_w, layer.ff_down_b, hparams.ffn_op, il);
    return ggml_add(ctx0, inp, cur);
}

ggml_tensor * clip_graph_llava_tower::build_layers(ggml_tensor * inp, int n_pos, int n_first, ggml_tensor * positions) {
    if (!merging.on()) {
        return build_vit(inp, n_pos, NORM_TYPE_NORMAL, hparams.ffn_op, positions, nullptr);
    }
    ggml_tensor * cur = ggml_add(ctx0, inp, positions);
    if (model.pre_ln_w) {
        cur = build_norm(cur, model.pre_ln_w, model.pre_ln_b, NORM_TYPE_NORMAL, eps, -1);
    }
    ggml_tensor * mask = nullptr;
    for (int il = 0; il < n_layer; il++) {
        if (il == merging.layer(n_layer)) {
            const aim_merged_rows merged = aim_build_tower_merge(ctx0, cur, n_first, n_first + merging.count(n_pos - n_first));
            cur    = merged.rows;
            mask   = merged.mask;
            owners = merged.owners;
        }
        cur = build_layer(cur, il, mask);
    }
    return model.post_ln_w ? build_norm(cur, model.post_ln_w, model.post_ln_b, NORM_TYPE_NORMAL, eps, -1) : cur;
}

// the rows of `wanted` positions; positions whose rows were merged share one
static ggml_tensor * rows_of(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * owners, ggml_tensor * wanted) {
    if (owners && wanted) {
        ggml_tensor * table = ggml_reshape_2d(ctx, owners, 1, owners->ne[0]);
        wanted = ggml_reshape_1d(ctx, ggml_get_rows(ctx, table, wanted), wanted->ne[0]);
    } else if (owners) {
        wanted = owners;
    }
    return wanted ? ggml_get_rows(ctx, rows, wanted) : rows;
}

// K of the layer behind the last one that is run, which reads what the projector reads
ggml_tensor * clip_graph_llava_tower::build_keys(ggml_tensor * cur) const {
    const clip_layer & layer = model.layers.at(n_layer);
    cur = build_norm(cur, layer.ln_1_w, layer.ln_1_b, NORM_TYPE_NORMAL, eps, n_layer);
    cur = build_mm(layer.k_w, cur);
    return layer.k_b ? ggml_add(ctx0, cur, layer.k_b) : cur;                                       // [n_embd, n]
}

ggml_cgraph * clip_graph_llava_tower::finish_features(ggml_tensor * cur, ggml_tensor * wanted) {
    cur = rows_of(ctx0, cur, owners, wanted);
    if (given == AIM_TOWER_FEATURES_AND_KEYS) {
        cur = ggml_concat(ctx0, cur, build_keys(cur), 0);                                          // [2*n_embd, n]
    }
    cb(cur, "features", -1);

    ggml_build_forward_expand(gf, cur);
    return gf;
}

ggml_cgraph * clip_graph_llava_tower::finish_projected(ggml_tensor * cur, ggml_tensor * wanted) {
    if (given != AIM_TOWER_PROJECTED) {
        return finish_features(cur, wanted);
    }
    if (owners == nullptr) { // rows that are not wanted need not be projected
        cur = rows_of(ctx0, cur, nullptr, wanted);
    }
    cur = build_ffn(cur,
        model.mm_0_w, model.mm_0_b,
        nullptr, nullptr,
        model.mm_2_w, model.mm_2_b,
        FFN_GELU_ERF,
        -1);                                                                                       // [n_mmproj_embd, n]
    if (owners != nullptr) {
        cur = rows_of(ctx0, cur, owners, wanted);
    }
    cb(cur, "projected", -1);

    ggml_build_forward_expand(gf, cur);
    return gf;
}

// x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3)) = 0.5 x (1 + tanh(...))
static ggml_tensor * gelu_tanh(ggml_context * ctx, ggml_tensor * x) {
    ggml_tensor * cur = ggml_scale_bias(ctx, ggml_sqr(ctx, x), 0.044715f, 1.0f);
    cur = ggml_scale(ctx, ggml_mul(ctx, cur, x), 1.5957691216057308f);
    return ggml_mul(ctx, x, ggml_sigmoid(ctx, cur));
}

static ggml_tensor * gelu_quick(ggml_context * ctx, ggml_tensor * x) {
    return ggml_mul(ctx, x, ggml_sigmoid(ctx, ggml_scale(ctx, x, 1.702f)));
}

ggml_tensor * clip_graph_llava_tower::build_mm(ggml_tensor * w, ggml_tensor * x) const {
    if (w->type == GGML_TYPE_F32 && x->op == GGML_OP_UNARY) { // the activation in front of ffn_down; its own node is dropped
        switch (ggml_get_unary_op(x)) {
            case GGML_UNARY_OP_GELU:       x = gelu_tanh (ctx0, x->src[0]); break;
            case GGML_UNARY_OP_GELU_QUICK: x = gelu_quick(ctx0, x->src[0]); break;
            default: break;
        }
    }
    return clip_graph::build_mm(w, x);
}
