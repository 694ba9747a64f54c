#include "qwen25vl-windows.h"
#include "../aim-pack.h"

#include <algorithm>
#include <cstring>

// hook: clip_ctx is defined in clip.cpp only
const aim_clip_packed & aim_clip_packed_of(const clip_ctx * ctx);

static const int MERGED = 2; // patches a side that become one token

static const char * const ORDER     = "aim_patch_order"; // [n_patches] the patch, in raster order, that lies at each place
static const char * const POSITIONS = "aim_positions";   // [4*n_patches] rows and columns of patches, twice
static const char * const TOKENS    = "aim_token_place"; // [n_patches/4] where each token, in raster order, lies

namespace {

// windows of one size that lie one after the other
struct group {
    int n_windows;
    int height; // tokens
    int width;

    int n_patches() const { return height*width*MERGED*MERGED; } // of one window
};

// how the tokens of a picture lie
struct layout {
    std::vector<group> groups;
    std::vector<int>   tokens; // the token, in raster order, that lies at each place

    layout(const clip_hparams & hparams, int n_patches_x, int n_patches_y) {
        const int size    = std::max(1, (hparams.attn_window_size > 0 ? hparams.attn_window_size : 112)/hparams.patch_size/MERGED);
        const int columns = n_patches_x/MERGED;
        const int rows    = n_patches_y/MERGED;

        for (const bool cut_below : { false, true }) {
            for (const bool cut_right : { false, true }) {
                add(cut_below ? rows/size*size : 0, cut_below ? rows : rows/size*size, cut_right ? columns/size*size : 0,
                    cut_right ? columns : columns/size*size, size, columns);
            }
        }
    }

private:
    // windows of the tokens in [y0, y1) x [x0, x1), which are whole or all cut alike
    void add(int y0, int y1, int x0, int x1, int size, int columns) {
        if (y0 >= y1 || x0 >= x1) {
            return;
        }

        const int height = std::min(size, y1 - y0);
        const int width  = std::min(size, x1 - x0);

        groups.push_back({ (y1 - y0)/height*((x1 - x0)/width), height, width });

        for (int y = y0; y < y1; y += height) {
            for (int x = x0; x < x1; x += width) {
                for (int i = 0; i < height*width; ++i) {
                    tokens.push_back((y + i/width)*columns + x + i%width);
                }
            }
        }
    }
};

} // namespace

bool clip_graph_qwen25vl_windows::handles(const clip_ctx * ctx, const clip_model & model) {
    return model.proj_type == PROJECTOR_TYPE_QWEN25VL && model.hparams.n_wa_pattern > 0 && aim_clip_packed_of(ctx).is_asked();
}

static ggml_tensor * new_indices(ggml_context * ctx, const char * name, int64_t n) {
    ggml_tensor * indices = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n);
    ggml_set_name(indices, name);
    ggml_set_input(indices);
    return indices;
}

// two frames, or one twice, each with its half of the kernel: [n_embd, n_patches], in the order of the windows
ggml_tensor * clip_graph_qwen25vl_windows::build_patches(ggml_tensor * order) {
    ggml_tensor * pixels = build_inp_raw();
    ggml_tensor * sum    = nullptr;

    for (int frame = 0; frame < 2; ++frame) {
        ggml_tensor * kernel = frame == 0 ? model.patch_embeddings_0 : model.patch_embeddings_1;            // [p, p, 3, n_embd]
        ggml_tensor * own    = ggml_view_4d(ctx0, pixels, pixels->ne[0], pixels->ne[1], pixels->ne[2], 1, pixels->nb[1], pixels->nb[2], pixels->nb[3],
            std::min(frame, n_batch - 1)*pixels->nb[3]);
        ggml_tensor * cur = ggml_im2col(ctx0, kernel, own, patch_size, patch_size, 0, 0, 1, 1, true, GGML_TYPE_F32);
        cur = ggml_reshape_2d(ctx0, cur, cur->ne[0], n_patches);                                            // [p*p*3, n_patches]
        cur = ggml_mul_mat(ctx0, ggml_reshape_2d(ctx0, kernel, kernel->ne[0]*kernel->ne[1]*kernel->ne[2], n_embd), cur);
        sum = sum ? ggml_add(ctx0, sum, cur) : cur;
    }

    return ggml_get_rows(ctx0, sum, order);
}

// q, k, v: [d_head, n_head, n_patches]
ggml_tensor * clip_graph_qwen25vl_windows::build_window_attn(const clip_layer & layer, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, int il) {
    ggml_tensor * all   = nullptr; // [n_embd, n_patches]
    int           first = 0;

    for (const group & windows : layout(hparams, n_patches_x, n_patches_y).groups) {
        const int n = windows.n_patches();

        const auto part = [&](ggml_tensor * t) {
            return ggml_view_4d(ctx0, t, d_head, n_head, n, windows.n_windows, t->nb[1], t->nb[2], n*t->nb[2], first*t->nb[2]);
        };

        ggml_tensor * cur = build_attn(nullptr, nullptr, part(q), part(k), part(v), nullptr, kq_scale, il);
        all    = all ? ggml_concat(ctx0, all, cur, 1) : cur;
        first += n*windows.n_windows;
    }

    return ggml_add(ctx0, build_mm(layer.o_w, all), layer.o_b);
}

ggml_tensor * clip_graph_qwen25vl_windows::build_layer(ggml_tensor * inp, ggml_tensor * positions, int il) {
    const clip_layer & layer = model.layers[il];
    int sections[4] = { d_head/4, d_head/4, d_head/4, d_head/4 };

    ggml_tensor * cur = build_norm(inp, layer.ln_1_w, layer.ln_1_b, NORM_TYPE_RMS, eps, il);

    const auto heads = [&](ggml_tensor * w, ggml_tensor * b) {
        return ggml_reshape_3d(ctx0, ggml_add(ctx0, build_mm(w, cur), b), d_head, n_head, n_patches);
    };
    const auto turned = [&](ggml_tensor * t) {
        return ggml_rope_multi(ctx0, t, positions, nullptr, d_head/2, sections, GGML_ROPE_TYPE_VISION, 32768, 10000, 1, 0, 1, 32, 1);
    };

    ggml_tensor * q = turned(heads(layer.q_w, layer.q_b));
    ggml_tensor * k = turned(heads(layer.k_w, layer.k_b));
    ggml_tensor * v = heads(layer.v_w, layer.v_b);

    const bool is_whole = (il + 1) % hparams.n_wa_pattern == 0;

    inp = ggml_add(ctx0, inp, is_whole ? build_attn(layer.o_w, layer.o_b, q, k, v, nullptr, kq_scale, il) : build_window_attn(layer, q, k, v, il));
    cur = build_norm(inp, layer.ln_2_w, layer.ln_2_b, NORM_TYPE_RMS, eps, il);
    cur = build_ffn(cur, layer.ff_up_w, layer.ff_up_b, layer.ff_gate_w, layer.ff_gate_b, layer.ff_down_w, layer.ff_down_b, hparams.ffn_op, il);
    return ggml_add(ctx0, inp, cur);
}

ggml_cgraph * clip_graph_qwen25vl_windows::build() {
    ggml_tensor * order     = new_indices(ctx0, ORDER,     n_patches);
    ggml_tensor * positions = new_indices(ctx0, POSITIONS, 4*n_patches);
    ggml_tensor * places    = new_indices(ctx0, TOKENS,    n_patches/(MERGED*MERGED));

    ggml_tensor * cur = build_patches(order);

    for (int il = 0; il < n_layer; il++) {
        cur = build_layer(cur, positions, il);
    }
    if (model.post_ln_w) {
        cur = build_norm(cur, model.post_ln_w, model.post_ln_b, NORM_TYPE_RMS, eps, n_layer);
    }

    cur = ggml_reshape_2d(ctx0, cur, n_embd*MERGED*MERGED, n_patches/(MERGED*MERGED));
    cur = build_ffn(cur, model.mm_0_w, model.mm_0_b, nullptr, nullptr, model.mm_1_w, model.mm_1_b, FFN_GELU_ERF, -1);
    cur = ggml_get_rows(ctx0, cur, places);
    cb(cur, "projected", -1);

    ggml_build_forward_expand(gf, cur);
    return gf;
}

static void set(ggml_tensor * t, const std::vector<int32_t> & values) {
    GGML_ASSERT(ggml_nelements(t) == (int64_t) values.size());
    ggml_backend_tensor_set(t, values.data(), 0, ggml_nbytes(t));
}

bool aim_set_window_inputs(ggml_cgraph * gf, const clip_hparams & hparams, int width, int height) {
    ggml_tensor * order = ggml_graph_get_tensor(gf, ORDER);
    if (order == nullptr) {
        return false;
    }

    const int n_patches_x = width /hparams.patch_size;
    const int n_patches_y = height/hparams.patch_size;
    const int n           = n_patches_x*n_patches_y;
    const int columns     = n_patches_x/MERGED;

    const layout lies(hparams, n_patches_x, n_patches_y);

    std::vector<int32_t> patches(n), positions(4*n), places(lies.tokens.size());

    for (int i = 0; i < n; ++i) {
        const int token = lies.tokens[i/(MERGED*MERGED)];
        const int y     = token/columns*MERGED + i/MERGED%MERGED;
        const int x     = token%columns*MERGED + i%MERGED;

        patches[i] = y*n_patches_x + x;
        places[token] = i/(MERGED*MERGED);

        for (int j = 0; j < 4; ++j) {
            positions[j*n + i] = j % 2 == 0 ? y : x;
        }
    }

    set(order, patches);
    set(ggml_graph_get_tensor(gf, POSITIONS), positions);
    set(ggml_graph_get_tensor(gf, TOKENS), places);
    return true;
}
