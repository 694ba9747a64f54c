// the loaded mmproj: what it is, its newline, and one tile of pixels through tower and projector

#include "aim-mtmd.h"
#include "aim-clip.h"
#include "aim-cpu.h"
#include "aim-guard.h"
#include "aim-live.h"
#include "aim-pack.h"
#include "aim-project.h"
#include "aim-stop.h"
#include "models/llava-clip.h"

#include "ggml-backend.h"

#include <algorithm>
#include <memory>
#include <vector>

// hooks: the structs behind these are defined in mtmd.cpp and clip.cpp only
clip_ctx * aim_mtmd_clip_ctx(mtmd_context * ctx);
const clip_model * aim_clip_model(const clip_ctx * ctx);
const std::vector<ggml_backend_t> & aim_clip_backends(const clip_ctx * ctx);
std::shared_ptr<aim_stop> & aim_clip_stop(clip_ctx * ctx);
const aim_clip_packed & aim_clip_packed_of(const clip_ctx * ctx);

int32_t aim_mtmd_patch_version(void) {
    return AIM_PATCH_VERSION;
}

static clip_ctx * vision_of(mtmd_context * ctx) {
    aim_expect_live(ctx, aim_kind::VISION, "mtmd context");
    clip_ctx * vision = aim_mtmd_clip_ctx(ctx);
    if (vision == nullptr) {
        aim_fail(AIM_STATUS_UNSUPPORTED, "the mmproj has no vision tower");
    }
    return vision;
}

enum class tile_kind { NONE, SQUARE, ANY_SIZE };

// of the projectors whose tower takes nothing but pixels
static tile_kind kind_of_tiles(const clip_ctx * vision) {
    switch (clip_get_projector_type(vision)) {
        case PROJECTOR_TYPE_LLAVA_ONEVISION:
        case PROJECTOR_TYPE_MLP:
        case PROJECTOR_TYPE_GEMMA3:
        case PROJECTOR_TYPE_IDEFICS3:
        case PROJECTOR_TYPE_INTERNVL:
            return tile_kind::SQUARE;
        case PROJECTOR_TYPE_QWEN2VL:
        case PROJECTOR_TYPE_QWEN25VL:
        case PROJECTOR_TYPE_QWEN3VL:
        case PROJECTOR_TYPE_GEMMA4V:
        case PROJECTOR_TYPE_GEMMA4UV:
            return tile_kind::ANY_SIZE;
        default:
            return tile_kind::NONE;
    }
}

// tiles of any size: sides are multiples of unit up to most, in pixels
struct tile_limits {
    int32_t unit;
    int32_t most;
    int32_t n_frames;
};

static tile_limits limits_of_tiles(const clip_ctx * vision) {
    const clip_hparams & hparams = *clip_get_hparams(vision);
    const int32_t most = 1 << 14;
    switch (clip_get_projector_type(vision)) {
        case PROJECTOR_TYPE_GEMMA4V:
        case PROJECTOR_TYPE_GEMMA4UV: {
            const auto n_positions = (int32_t) aim_clip_model(vision)->position_embeddings->ne[1]; // a table of rows, one of columns
            return { hparams.patch_size*hparams.n_merge, std::min(most, n_positions*hparams.patch_size), 1 };
        }
        default:
            return { 2*hparams.patch_size, most, 2 };
    }
}

// what clip.cpp would abort at
static void check_tile(const clip_ctx * vision, const aim_tile * tile) {
    aim_expect(tile, "tile");
    const clip_hparams & hparams = *clip_get_hparams(vision);
    const auto [width, height] = std::pair(tile->width, tile->height);
    switch (kind_of_tiles(vision)) {
        case tile_kind::NONE:
            aim_fail(AIM_STATUS_UNSUPPORTED, "this projector does not take single tiles; use mtmd_tokenize and mtmd_encode_chunk");
        case tile_kind::SQUARE:
            if (width != hparams.image_size || height != hparams.image_size || tile->n_frames != 1) {
                aim_fail(AIM_STATUS_INVALID, "a tile of %d frames, %d x %d pixels; this tower takes one of %d x %d", tile->n_frames, width, height,
                    hparams.image_size, hparams.image_size);
            }
            return;
        case tile_kind::ANY_SIZE:
            const tile_limits limits = limits_of_tiles(vision);
            const auto is_side = [&](int32_t side) { return side > 0 && side <= limits.most && side % limits.unit == 0; };
            if (!is_side(width) || !is_side(height) || tile->n_frames < 1 || tile->n_frames > limits.n_frames) {
                aim_fail(AIM_STATUS_INVALID, "a tile of %d frames, %d x %d pixels; this tower takes %s of multiples of %d up to %d", tile->n_frames,
                    width, height, limits.n_frames == 1 ? "one" : "one or two", limits.unit, limits.most);
            }
            return;
    }
}

static int32_t patches_per_side(const clip_hparams & hparams) {
    return hparams.image_size / hparams.patch_size;
}

const char * aim_mtmd_projector(mtmd_context * ctx) {
    const char * name = nullptr;
    aim_guard([&]() -> int32_t {
        // MLP_NORM (Yi) has no name of its own, upstream finds it by its tensors
        const auto it = PROJECTOR_TYPE_NAMES.find(clip_get_projector_type(vision_of(ctx)));
        name = it == PROJECTOR_TYPE_NAMES.end() ? "mlp_norm" : it->second.c_str();
        return AIM_STATUS_OK;
    });
    return name;
}

int32_t aim_mtmd_has_tiles(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t { return kind_of_tiles(vision_of(ctx)) != tile_kind::NONE; });
}

int32_t aim_mtmd_set_precision(int32_t precision) {
    return aim_guard([&]() -> int32_t {
        if (precision < AIM_PRECISION_EXACT || precision > AIM_PRECISION_8) {
            aim_fail(AIM_STATUS_INVALID, "precision is %d; 0 is exact, 1 sixteen bits, 2 int8", precision);
        }
        aim_clip_precision(precision);
        return AIM_STATUS_OK;
    });
}

int32_t aim_mtmd_precision(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t { return aim_clip_packed_of(vision_of(ctx)).precision(); });
}

int32_t aim_mtmd_set_merging(double retain, double depth) {
    return aim_guard([&]() -> int32_t {
        if (!(retain > 0.0 && retain <= 1.0) || !(depth > 0.0 && depth < 1.0)) { // written so that nan fails
            aim_fail(AIM_STATUS_INVALID, "merging inside the tower to %g at %g of its depth; the first must lie in (0, 1], the second in (0, 1)", retain, depth);
        }
        aim_tower_merge_next(retain, depth);
        return AIM_STATUS_OK;
    });
}

int32_t aim_mtmd_merges(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t {
        clip_ctx * vision = vision_of(ctx);
        const bool is_ours = clip_get_projector_type(vision) == PROJECTOR_TYPE_LLAVA_ONEVISION || clip_graph_llava_clip::handles(*aim_clip_model(vision));
        return is_ours && clip_get_hparams(vision)->n_layer > 1;
    });
}

const char * aim_mtmd_kernels(void) {
    const char * names = nullptr;
    aim_guard([&]() -> int32_t {
        const auto info = aim_cpu_function<aim_kernels_info_t>("aim_kernels_info");
        names = info ? info() : "";
        return AIM_STATUS_OK;
    });
    return names;
}

int32_t aim_mtmd_use_kernels(const char * name) {
    return aim_guard([&]() -> int32_t {
        const auto use = aim_cpu_function<aim_kernels_use_t>("aim_kernels_use");
        if (!use || !use(name)) {
            aim_fail(AIM_STATUS_FAILED, "this CPU has no kernels %s", name ? name : "of ours");
        }
        return AIM_STATUS_OK;
    });
}

int32_t aim_mtmd_tile_side(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t { return clip_get_hparams(vision_of(ctx))->image_size; });
}

int32_t aim_mtmd_patches_per_side(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t { return patches_per_side(*clip_get_hparams(vision_of(ctx))); });
}

int32_t aim_mtmd_n_embd(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t { return clip_n_mmproj_embd(vision_of(ctx)); });
}

int32_t aim_mtmd_class_position_last(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t {
        clip_ctx * vision = vision_of(ctx);
        if (clip_get_projector_type(vision) != PROJECTOR_TYPE_INTERNVL) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "only the position table of internvl begins with a row that belongs behind the others");
        }
        ggml_tensor * table = aim_clip_model(vision)->position_embeddings; // [n_embd, 1 + n_patches]
        std::vector<uint8_t> rows(ggml_nbytes(table));
        ggml_backend_tensor_get(table, rows.data(), 0, rows.size());
        std::rotate(rows.begin(), rows.begin() + table->nb[1], rows.end());
        ggml_backend_tensor_set(table, rows.data(), 0, rows.size());
        return AIM_STATUS_OK;
    });
}

int32_t aim_mtmd_newline(mtmd_context * ctx, float * out) {
    return aim_guard([&]() -> int32_t {
        const ggml_tensor * newline = aim_clip_model(vision_of(ctx))->image_newline;
        aim_expect(out, "out");
        if (newline == nullptr) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "the mmproj has no newline embedding (%s)", TN_IMAGE_NEWLINE);
        }
        std::vector<uint8_t> data(ggml_nbytes(newline));
        ggml_backend_tensor_get(newline, data.data(), 0, data.size());
        const int64_t n = ggml_nelements(newline);
        if (newline->type == GGML_TYPE_F32) {
            std::copy_n(reinterpret_cast<const float *>(data.data()), n, out);
        } else {
            ggml_get_type_traits(newline->type)->to_float(data.data(), out, n);
        }
        return AIM_STATUS_OK;
    });
}

// uint8 [height, width, 3] -> float, the same two roundings as (x/255 - mean)/std in transformers
static clip_image_f32 normalised(const clip_hparams & hparams, const aim_tile & tile, int32_t frame) {
    clip_image_u8 pixels;
    pixels.set_size({ tile.width, tile.height }, false);
    const uint8_t * rgb = tile.rgb + frame*pixels.n_elements();
    pixels.cpy_buf(std::vector<uint8_t>(rgb, rgb + pixels.n_elements()));
    clip_image_f32 image;
    image.from_u8(pixels);
    image.normalize(hparams.image_mean, hparams.image_std);
    return image;
}

int32_t aim_tile_size(void) {
    return sizeof(aim_tile);
}

static int32_t count_rows(const clip_ctx * vision, const aim_tile & tile) {
    clip_image_f32 image;
    image.set_size({ tile.width, tile.height }, true, false); // no pixels
    return clip_n_output_tokens(vision, &image);
}

int32_t aim_mtmd_n_rows(mtmd_context * ctx, const aim_tile * tile) {
    return aim_guard([&]() -> int32_t {
        const clip_ctx * vision = vision_of(ctx);
        check_tile(vision, tile);
        return count_rows(vision, *tile);
    });
}

// a call that can be stopped
static aim_stop * begin(clip_ctx * vision) {
    aim_stop * stop = aim_clip_stop(vision).get();
    if (stop) {
        stop->reset();
    }
    return stop;
}

// a run that came to no end
static void fail(const aim_stop * stop, const char * what, const char * why) {
    if (stop && stop->is_stopped()) {
        aim_fail(AIM_STATUS_ABORTED, "the %s was stopped", what);
    }
    aim_fail(AIM_STATUS_FAILED, "the %s could not be run; %s", what, why);
}

// what the tower's graph gives of one tile, `width` numbers a row
static void encode(clip_ctx * vision, const aim_tile * tile, int32_t width, int32_t n_threads, float * out) {
    check_tile(vision, tile);
    aim_expect(tile->rgb, "rgb");
    aim_expect(out, "out");
    const aim_stop * stop = begin(vision);
    clip_image_f32_batch frames;
    for (int32_t i = 0; i < tile->n_frames; ++i) {
        frames.entries.push_back(normalised(*clip_get_hparams(vision), *tile, i));
    }
    std::vector<float> rows((size_t) count_rows(vision, *tile) * width);
    if (!clip_image_batch_encode(vision, aim_thread_count(n_threads), &frames, rows)) {
        fail(stop, "vision tower", "its log has the reason");
    }
    std::copy(rows.begin(), rows.end(), out);
}

int32_t aim_mtmd_encode(mtmd_context * ctx, const aim_tile * tile, int32_t n_threads, float * out) {
    return aim_guard([&]() -> int32_t {
        clip_ctx * vision = vision_of(ctx);
        encode(vision, tile, clip_n_mmproj_embd(vision), n_threads, out);
        return AIM_STATUS_OK;
    });
}

// a tower whose graph is ours
static clip_ctx * own_tower(mtmd_context * ctx) {
    clip_ctx * vision = vision_of(ctx);
    if (clip_get_projector_type(vision) != PROJECTOR_TYPE_LLAVA_ONEVISION && !clip_graph_llava_clip::handles(*aim_clip_model(vision))) {
        aim_fail(AIM_STATUS_UNSUPPORTED, "projector %s: its rows before the projector are not given out", aim_mtmd_projector(ctx));
    }
    return vision;
}

int32_t aim_mtmd_n_features(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t { return clip_get_hparams(own_tower(ctx))->n_embd; });
}

int32_t aim_mtmd_has_keys(mtmd_context * ctx) {
    return aim_guard([&]() -> int32_t { return clip_graph_llava_clip::has_keys(*aim_clip_model(vision_of(ctx))); });
}

int32_t aim_mtmd_encode_features(mtmd_context * ctx, const aim_tile * tile, int32_t with_keys, int32_t n_threads, float * out) {
    return aim_guard([&]() -> int32_t {
        clip_ctx * vision = own_tower(ctx);
        const int32_t n_features = clip_get_hparams(vision)->n_embd;
        if (with_keys && !clip_graph_llava_clip::has_keys(*aim_clip_model(vision))) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "the mmproj has no keys of the layer behind those that are run (v.blk.%d.attn_k)",
                clip_get_hparams(vision)->n_layer);
        }
        const aim_tower_gives gives(with_keys ? AIM_TOWER_FEATURES_AND_KEYS : AIM_TOWER_FEATURES);
        encode(vision, tile, with_keys ? 2*n_features : n_features, n_threads, out);
        return AIM_STATUS_OK;
    });
}

int32_t aim_mtmd_project(mtmd_context * ctx, const float * rows, int32_t n, int32_t n_threads, float * out) {
    return aim_guard([&]() -> int32_t {
        clip_ctx * vision = own_tower(ctx);
        aim_expect(rows, "rows");
        aim_expect(out, "out");
        if (n < 1) {
            aim_fail(AIM_STATUS_INVALID, "%d rows cannot be projected", n);
        }
        const aim_stop * stop = begin(vision);
        if (!aim_project(*aim_clip_model(vision), aim_clip_backends(vision), rows, n, aim_thread_count(n_threads), out)) {
            fail(stop, "projector", "there may be too little memory");
        }
        return AIM_STATUS_OK;
    });
}

int32_t aim_mtmd_set_stop(mtmd_context * ctx, aim_stop_callback poll, void * data) {
    return aim_guard([&]() -> int32_t {
        clip_ctx * vision = vision_of(ctx);
        auto stop = poll ? std::make_shared<aim_stop>(poll, data) : nullptr;
        for (ggml_backend_t backend : aim_clip_backends(vision)) {
            aim_stop::install(backend, stop.get());
        }
        aim_clip_stop(vision) = std::move(stop); // the earlier one goes when no backend has it any more
        return AIM_STATUS_OK;
    });
}
