// visual tokens after the projector: pooled video frames, and images assembled from anyres tiles
// counts are planned by integer functions before any row exists; rows are then copied or blended
// ref: transformers 5, models/llava_onevision/modeling_llava_onevision.py and image_processing_utils.py

#include "aim-guard.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

constexpr int32_t MAX_SIDE = 1 << 20; // pixels or patches per side; keeps every product below within 64 bits

void expect_range(int32_t value, int32_t min, int32_t max, const char * name) {
    if (value < min || value > max) {
        aim_fail(AIM_STATUS_INVALID, "%s is %d, it must lie in [%d, %d]", name, value, min, max);
    }
}

//
// bilinear resize of a grid of rows, as torch.nn.functional.interpolate(mode="bilinear") does it on the CPU
// ref: aten/src/ATen/native/UpSample.h, compute_source_index_and_lambda
//

struct blend {
    int32_t lo, hi;    // source indices
    float   w_lo, w_hi; // their weights
};

blend source_of(int32_t dst, int32_t n_src, int32_t n_dst) {
    if (n_src == n_dst) {
        return { dst, dst, 1.0f, 0.0f };
    }
    const float   scale = (float) n_src / (float) n_dst;
    const float   pixel = std::fma(scale, (float) dst + 0.5f, -0.5f); // one rounding, as in torch's builds for avx2 and newer
    const float   at    = std::max(pixel, 0.0f);                      // the first half pixel sticks to the edge
    const int32_t lo    = std::min((int32_t) std::floor(at), n_src - 1);
    const float   w_hi  = std::min(std::max(at - (float) lo, 0.0f), 1.0f);
    return { lo, std::min(lo + 1, n_src - 1), 1.0f - w_hi, w_hi };
}

// src: h * w row pointers in raster order -> out [out_h * out_w, n_embd]
void resize(const std::vector<const float *> & src, int32_t h, int32_t w, int32_t n_embd, int32_t out_h, int32_t out_w, float * out) {
    for (int32_t y = 0; y < out_h; y++) {
        const blend v = source_of(y, h, out_h);
        for (int32_t x = 0; x < out_w; x++, out += n_embd) {
            const blend u = source_of(x, w, out_w);
            const float * top_l = src[(size_t) v.lo*w + u.lo];
            const float * top_r = src[(size_t) v.lo*w + u.hi];
            const float * bot_l = src[(size_t) v.hi*w + u.lo];
            const float * bot_r = src[(size_t) v.hi*w + u.hi];
            for (int32_t k = 0; k < n_embd; k++) {
                out[k] = v.w_lo * (u.w_lo*top_l[k] + u.w_hi*top_r[k]) + v.w_hi * (u.w_lo*bot_l[k] + u.w_hi*bot_r[k]);
            }
        }
    }
}

//
// anyres plan
//

struct size2 {
    int32_t h, w;
};

// the pinpoint that keeps most of the image's resolution, and wastes least; the first one wins a tie
// ref: select_best_resolution
size2 best_resolution(size2 image, const int32_t * pinpoints, int32_t n_pinpoints) {
    size2 best = { pinpoints[0], pinpoints[1] };
    int64_t most = 0;
    int64_t least_waste = INT64_MAX;
    for (int32_t i = 0; i < n_pinpoints; i++) {
        const int32_t h = pinpoints[2*i];
        const int32_t w = pinpoints[2*i + 1];
        const double  scale     = std::min((double) w / image.w, (double) h / image.h);
        const int64_t scaled    = (int64_t) (image.w * scale) * (int64_t) (image.h * scale);
        const int64_t effective = std::min(scaled, (int64_t) image.w * image.h);
        const int64_t waste     = (int64_t) w * h - effective;
        if (effective > most || (effective == most && waste < least_waste)) {
            most = effective;
            least_waste = waste;
            best = { h, w };
        }
    }
    return best;
}

// python's int(round(x, 7)) for x >= 0
int32_t int_round7(double x) {
    return (int32_t) (std::round(x * 1e7) / 1e7);
}

// python's x // y for positive floats: taken from the remainder, as x / y may round up to the next integer
double floor_div(double x, double y) {
    const double quotient = (x - std::fmod(x, y)) / y;
    const double whole = std::floor(quotient);
    return quotient - whole > 0.5 ? whole + 1 : whole;
}

// drops the patches that cover nothing but padding. ref: unpad_image
void unpad(size2 image, aim_anyres_layout & l) {
    const int32_t h = l.tile_rows * l.patches;
    const int32_t w = l.tile_cols * l.patches;
    if ((double) image.w / image.h > (double) w / h) {
        l.crop_y = (h - int_round7(image.h * ((double) w / image.w))) / 2;
    } else {
        l.crop_x = (w - int_round7(image.w * ((double) h / image.h))) / 2;
    }
    l.crop_h = h - 2*l.crop_y;
    l.crop_w = w - 2*l.crop_x;
}

// ref: pack_image_features, the anyres_max_N rule
void shrink(int32_t max_tiles, aim_anyres_layout & l) {
    const double ratio = std::sqrt((double) ((int64_t) l.crop_h * l.crop_w) / ((double) max_tiles * l.patches * l.patches));
    l.grid_h = l.crop_h;
    l.grid_w = l.crop_w;
    if (ratio > 1.1) { // at least one patch, where torch would refuse to resize to none
        l.grid_h = std::max(1, (int32_t) floor_div(l.crop_h, ratio));
        l.grid_w = std::max(1, (int32_t) floor_div(l.crop_w, ratio));
    }
}

void expect_pinpoints(const int32_t * pinpoints, int32_t n_pinpoints, int32_t side) {
    aim_expect(pinpoints, "pinpoints");
    expect_range(n_pinpoints, 1, 1 << 16, "n_pinpoints");
    for (int32_t i = 0; i < 2*n_pinpoints; i++) {
        expect_range(pinpoints[i], side, MAX_SIDE, "a pinpoint");
        if (pinpoints[i] % side != 0) {
            aim_fail(AIM_STATUS_INVALID, "pinpoint %d is no multiple of the tile side %d", pinpoints[i], side);
        }
    }
}

int32_t n_base(const aim_anyres_layout & l) {
    return l.patches * l.patches;
}

int32_t n_grid(const aim_anyres_layout & l) {
    return l.grid_h * l.grid_w;
}

void expect_layout(const aim_anyres_layout * l) {
    aim_expect(l, "layout");
    const bool tiles = l->patches > 0 && l->tile_rows > 0 && l->tile_cols > 0 && l->n_tiles == 1 + l->tile_rows * l->tile_cols;
    const bool crop  = tiles && l->crop_y >= 0 && l->crop_x >= 0 && l->crop_h >= 0 && l->crop_w >= 0 &&
        l->crop_y + l->crop_h <= l->tile_rows * l->patches && l->crop_x + l->crop_w <= l->tile_cols * l->patches;
    const bool grid  = crop && l->grid_h >= 0 && l->grid_h <= l->crop_h && l->grid_w >= 0 && l->grid_w <= l->crop_w;
    if (!grid) {
        aim_fail(AIM_STATUS_INVALID, "the layout was not made by aim_anyres_plan");
    }
}

//
// anyres rows
//

// where each kept patch of the grid lies in the tiles: tile by tile in memory, but raster order over the whole grid here
std::vector<const float *> grid_rows(const aim_anyres_layout & l, const float * tile_rows, int32_t n_embd) {
    std::vector<const float *> rows;
    rows.reserve((size_t) l.crop_h * l.crop_w);
    for (int32_t y = l.crop_y; y < l.crop_y + l.crop_h; y++) {
        for (int32_t x = l.crop_x; x < l.crop_x + l.crop_w; x++) {
            const int32_t tile = 1 + (y / l.patches) * l.tile_cols + x / l.patches; // 0 is the base view
            const int32_t slot = (y % l.patches) * l.patches + x % l.patches;
            rows.push_back(tile_rows + ((size_t) tile * n_base(l) + slot) * n_embd);
        }
    }
    return rows;
}

// writes output rows in order and notes which slot each of them is
struct row_writer {
    int32_t   n_embd;
    float   * rows;
    int32_t * slots; // may be null
    int32_t   n = 0;

    int32_t add(const float * row, int32_t slot) {
        std::memcpy(rows + (size_t) n * n_embd, row, n_embd * sizeof(float));
        if (slots) {
            slots[n] = slot;
        }
        return n++;
    }
};

// one merged block: rows, the slots they survived from, and who went where
struct merged {
    std::vector<float>   rows;
    std::vector<int32_t> slot;
    std::vector<int32_t> owner;
};

struct merging {
    int32_t method; // enum aim_merge_method
    double  retain;
    int32_t n_threads;
};

merged merge(const float * rows, int32_t n, int32_t n_embd, const merging & how) {
    const int32_t n_left = aim_checked(aim_merge_count(n, how.retain));
    merged m = { std::vector<float>((size_t) n_left * n_embd), std::vector<int32_t>(n_left), std::vector<int32_t>(n) };
    float * out = m.rows.data();
    if (n > 0 && how.method == AIM_MERGE_WARD) {
        aim_checked(aim_ward_rows(rows, nullptr, n, n_embd, n_left, how.n_threads, out, m.slot.data(), nullptr, m.owner.data()));
    } else if (n > 0) {
        aim_checked(aim_merge_rows(rows, n, n_embd, how.retain, how.n_threads, out, m.slot.data(), m.owner.data()));
    }
    return m;
}

void write_owners(const merged & m, const std::vector<int32_t> & place, int32_t * owner) {
    for (size_t i = 0; i < m.owner.size(); i++) {
        owner[i] = place[m.owner[i]];
    }
}

// base view: survivors in raster order
void write_base(const merged & m, row_writer & out, int32_t * owner) {
    std::vector<int32_t> place; // merged row -> output row
    for (size_t i = 0; i < m.slot.size(); i++) {
        place.push_back(out.add(m.rows.data() + i * out.n_embd, m.slot[i]));
    }
    if (owner) {
        write_owners(m, place, owner);
    }
}

// grid: survivors in raster order, the newline of each grid row behind its last survivor
void write_grid(const merged & m, const aim_anyres_layout & l, const float * newline, row_writer & out, int32_t * owner) {
    std::vector<int32_t> place;
    size_t i = 0;
    for (int32_t y = 0; y < l.grid_h; y++) {
        for (; i < m.slot.size() && m.slot[i] < (y + 1) * l.grid_w; i++) {
            place.push_back(out.add(m.rows.data() + i * out.n_embd, n_base(l) + m.slot[i]));
        }
        out.add(newline, -1);
    }
    if (owner) {
        write_owners(m, place, owner);
    }
}

} // namespace

int32_t aim_pool_side(int32_t side) {
    return aim_guard([&]() -> int32_t {
        expect_range(side, 1, MAX_SIDE, "side");
        return (side + 1) / 2;
    });
}

int32_t aim_pool_rows(const float * rows, int32_t side, int32_t n_embd, float * out) {
    return aim_guard([&]() -> int32_t {
        aim_expect(rows, "rows");
        aim_expect(out, "out");
        expect_range(side, 1, MAX_SIDE, "side");
        expect_range(n_embd, 1, MAX_SIDE, "n_embd");
        std::vector<const float *> src;
        for (int64_t i = 0; i < (int64_t) side * side; i++) {
            src.push_back(rows + i * n_embd);
        }
        const int32_t n = (side + 1) / 2;
        resize(src, side, side, n_embd, n, n, out);
        return n * n;
    });
}

int32_t aim_anyres_layout_size(void) {
    return sizeof(aim_anyres_layout);
}

int32_t aim_anyres_plan(int32_t image_h, int32_t image_w, int32_t side_px, int32_t patches_per_side, const int32_t * pinpoints,
        int32_t n_pinpoints, int32_t max_tiles, aim_anyres_layout * out) {
    return aim_guard([&]() -> int32_t {
        aim_expect(out, "out");
        expect_range(image_h, 1, MAX_SIDE, "image height");
        expect_range(image_w, 1, MAX_SIDE, "image width");
        expect_range(side_px, 1, MAX_SIDE, "tile side");
        expect_range(patches_per_side, 1, side_px, "patches per side");
        expect_range(max_tiles, 1, MAX_SIDE, "max_tiles");
        expect_pinpoints(pinpoints, n_pinpoints, side_px);

        const size2 image = { image_h, image_w };
        const size2 best  = best_resolution(image, pinpoints, n_pinpoints);
        aim_anyres_layout l = {};
        l.side      = side_px;
        l.patches   = patches_per_side;
        l.best_h    = best.h;
        l.best_w    = best.w;
        l.tile_rows = best.h / side_px;
        l.tile_cols = best.w / side_px;
        l.n_tiles   = 1 + l.tile_rows * l.tile_cols;
        unpad(image, l);
        shrink(max_tiles, l);
        l.n_tokens  = n_base(l) + l.grid_h * (l.grid_w + 1);
        *out = l;
        return AIM_STATUS_OK;
    });
}

int32_t aim_anyres_count(const aim_anyres_layout * layout, double retain) {
    return aim_guard([&]() -> int32_t {
        expect_layout(layout);
        const int32_t base = aim_checked(aim_merge_count(n_base(*layout), retain));
        const int32_t grid = aim_checked(aim_merge_count(n_grid(*layout), retain));
        return base + grid + layout->grid_h;
    });
}

int32_t aim_anyres_pack(const aim_anyres_layout * layout, const float * tile_rows, int32_t n_embd, const float * newline,
        int32_t method, double retain, int32_t n_threads, float * out_rows, int32_t * out_slot, int32_t * out_owner) {
    return aim_guard([&]() -> int32_t {
        expect_layout(layout);
        aim_expect(tile_rows, "tile_rows");
        aim_expect(newline, "newline");
        aim_expect(out_rows, "out_rows");
        expect_range(n_embd, 1, MAX_SIDE, "n_embd");
        expect_range(method, AIM_MERGE_SIMILARITY, AIM_MERGE_WARD, "method");
        const aim_anyres_layout & l = *layout;
        const merging how = { method, retain, n_threads };

        // 1. the grid without padding, shrunk if it is too large
        std::vector<float> grid((size_t) n_grid(l) * n_embd); // [grid_h * grid_w, n_embd]
        resize(grid_rows(l, tile_rows, n_embd), l.crop_h, l.crop_w, n_embd, l.grid_h, l.grid_w, grid.data());
        // 2. base view and grid merged apart, 3. written with the newlines
        row_writer out = { n_embd, out_rows, out_slot };
        write_base(merge(tile_rows, n_base(l), n_embd, how), out, out_owner);
        write_grid(merge(grid.data(), n_grid(l), n_embd, how), l, newline, out, out_owner ? out_owner + n_base(l) : nullptr);
        return out.n;
    });
}
