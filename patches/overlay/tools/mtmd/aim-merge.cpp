// token merging: bipartite soft matching in rounds (AIM, arXiv 2412.03248; ToMe, arXiv 2210.09461)
// knows rows only. Frames, images and newlines are the callers' concern: they never mix rows of two frames

#include "aim-guard.h"

#include "ggml.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace {

// sources compared per matmul; bounds the similarity block to 512 x n/2 floats
constexpr int32_t SOURCE_BLOCK = 512;

// a matmul this small is done before a second thread has woken up, and on busy cores waiting for it costs far more
constexpr double FLOPS_PER_THREAD = 2e8;

struct match {
    float   similarity;
    int32_t source;      // index among the even rows
    int32_t destination; // index among the odd rows
};

// rows at work in one round, with where they came from
struct token_set {
    int32_t            n_embd;
    int32_t            key_at; // the columns [key_at, key_at + n_key) say how similar two rows are
    int32_t            n_key;
    std::vector<float>   rows; // [n, n_embd]
    std::vector<int32_t> slot; // [n] input row that survived
    std::vector<int32_t> owner; // [n_input] current row of each input row

    int32_t n() const { return (int32_t) slot.size(); }
    const float * key(int32_t i) const { return row(i) + key_at; }
    float * row(int32_t i) { return rows.data() + (size_t) i * n_embd; }
    const float * row(int32_t i) const { return rows.data() + (size_t) i * n_embd; }
};

void normalise(const float * row, int32_t n_embd, float * out) {
    double sum = 0;
    for (int32_t k = 0; k < n_embd; k++) {
        sum += (double) row[k] * row[k];
    }
    const float scale = sum > 0 ? (float) (1 / std::sqrt(sum)) : 0.0f; // a zero row is similar to nothing
    for (int32_t k = 0; k < n_embd; k++) {
        out[k] = row[k] * scale;
    }
}

// S = a b^T on ggml's CPU backend: the host's best float kernel, and every element summed in the same order whatever
// the shapes and threads, so equal rows give equal similarities and ties stay ties
class similarity {
  public:
    similarity(int32_t n_embd, int32_t n_a, int32_t n_b, int32_t n_threads) {
        backend.reset(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
        ggml_init_params params = { 4*ggml_tensor_overhead() + ggml_graph_overhead_custom(8, false), nullptr, true };
        ctx.reset(ggml_init(params));
        if (!backend || !ctx) {
            aim_fail(AIM_STATUS_FAILED, "ggml's CPU backend could not be started");
        }
        set_threads(n_threads);
        a = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n_embd, n_a);
        b = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n_embd, n_b);
        s = ggml_mul_mat(ctx.get(), b, a); // [n_b, n_a]
        graph = ggml_new_graph_custom(ctx.get(), 8, false);
        ggml_build_forward_expand(graph, s);
        buffer.reset(ggml_backend_alloc_ctx_tensors(ctx.get(), backend.get()));
        if (!buffer) {
            aim_fail(AIM_STATUS_FAILED, "out of memory while merging tokens");
        }
    }

    // normalised rows go straight into these
    float * source(int32_t i) { return (float *) a->data + i * a->ne[0]; }
    float * destination(int32_t j) { return (float *) b->data + j * b->ne[0]; }

    void compute() {
        if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
            aim_fail(AIM_STATUS_FAILED, "ggml failed while merging tokens");
        }
    }

    // most similar destination of source i; the lowest index wins a tie
    match best(int32_t i) const {
        const float * row = (const float *) s->data + i * s->ne[0];
        const float * max = std::max_element(row, row + s->ne[0]);
        return { *max, i, (int32_t) (max - row) };
    }

  private:
    ggml_backend_ptr        backend;
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;
    ggml_cgraph * graph = nullptr;
    ggml_tensor * a     = nullptr;
    ggml_tensor * b     = nullptr;
    ggml_tensor * s     = nullptr;

    void set_threads(int32_t n_threads) {
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend.get()));
        auto set = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
        if (set) {
            set(backend.get(), n_threads);
        }
    }
};

// best destination of every source (even row) of x
std::vector<match> match_sources(const token_set & x, int32_t n_threads) {
    const int32_t n_a = (x.n() + 1) / 2;
    const int32_t n_b = x.n() / 2;
    const int32_t n_block = std::min(n_a, SOURCE_BLOCK);
    const double  flops   = 2.0 * n_block * n_b * x.n_key;
    similarity sim(x.n_key, n_block, n_b, (int32_t) std::min<double>(n_threads, 1 + flops / FLOPS_PER_THREAD));
    for (int32_t j = 0; j < n_b; j++) {
        normalise(x.key(2*j + 1), x.n_key, sim.destination(j));
    }
    std::vector<match> matches;
    matches.reserve(n_a);
    for (int32_t first = 0; first < n_a; first += n_block) {
        const int32_t n = std::min(n_block, n_a - first); // a short last block computes stale rows too, nobody reads them
        for (int32_t i = 0; i < n; i++) {
            normalise(x.key(2*(first + i)), x.n_key, sim.source(i));
        }
        sim.compute();
        for (int32_t i = 0; i < n; i++) {
            match m = sim.best(i);
            m.source += first;
            matches.push_back(m);
        }
    }
    return matches;
}

// the r most similar sources, in raster order
std::vector<match> choose(std::vector<match> matches, int32_t r) {
    const auto more_similar = [](const match & p, const match & q) {
        return p.similarity != q.similarity ? p.similarity > q.similarity : p.source < q.source;
    };
    std::partial_sort(matches.begin(), matches.begin() + r, matches.end(), more_similar);
    matches.resize(r);
    std::sort(matches.begin(), matches.end(), [](const match & p, const match & q) { return p.source < q.source; });
    return matches;
}

// adds chosen sources to their destinations and divides by 1 + count: a plain mean, sizes of earlier rounds do not weigh
void average(token_set & x, const std::vector<match> & chosen) {
    std::vector<int32_t> count(x.n(), 1);
    for (const match & m : chosen) {
        const float * from = x.row(2*m.source);
        float * to = x.row(2*m.destination + 1);
        for (int32_t k = 0; k < x.n_embd; k++) {
            to[k] += from[k];
        }
        count[2*m.destination + 1]++;
    }
    for (int32_t i = 1; i < x.n(); i += 2) {
        if (count[i] == 1) {
            continue;
        }
        float * to = x.row(i);
        for (int32_t k = 0; k < x.n_embd; k++) {
            to[k] /= (float) count[i];
        }
    }
}

// drops the chosen sources, survivors move up in raster order
void compact(token_set & x, const std::vector<match> & chosen) {
    std::vector<int32_t> into(x.n()); // old row -> the row it now is, or is part of
    std::iota(into.begin(), into.end(), 0);
    for (const match & m : chosen) {
        into[2*m.source] = 2*m.destination + 1;
    }
    std::vector<int32_t> place(x.n(), -1);
    int32_t n_left = 0;
    for (int32_t i = 0; i < x.n(); i++) {
        if (into[i] != i) {
            continue;
        }
        if (n_left != i) {
            std::copy_n(x.row(i), x.n_embd, x.row(n_left));
        }
        x.slot[n_left] = x.slot[i];
        place[i] = n_left++;
    }
    for (int32_t & o : x.owner) {
        o = place[into[o]];
    }
    x.slot.resize(n_left);
}

void merge_round(token_set & x, int32_t target, int32_t n_threads) {
    const int32_t r = std::min(x.n() - target, x.n() / 2);
    const std::vector<match> chosen = choose(match_sources(x, n_threads), r);
    average(x, chosen);
    compact(x, chosen);
}

} // namespace

static void expect_share(double retain) {
    if (!(retain > 0.0f && retain <= 1.0f)) { // written so that nan fails
        aim_fail(AIM_STATUS_INVALID, "the retained share is %g, it must lie in (0, 1]", retain);
    }
}

int32_t aim_merge_count(int32_t n, double retain) {
    return aim_guard([&]() -> int32_t {
        expect_share(retain);
        if (n < 0) {
            aim_fail(AIM_STATUS_INVALID, "%d rows cannot be merged", n);
        }
        return n == 0 ? 0 : std::max(1, (int32_t) std::floor(n * retain + 1e-9));
    });
}

static void expect_width(int32_t n_embd) {
    if (n_embd < 1) {
        aim_fail(AIM_STATUS_INVALID, "rows of width %d cannot be merged", n_embd);
    }
}

// the first n_out columns of the merged rows go to out_rows
static int32_t merge_set(token_set & x, int32_t target, int32_t n_threads, int32_t n_out, float * out_rows, int32_t * out_slot, int32_t * out_owner) {
    x.slot.resize(x.rows.size() / x.n_embd);
    x.owner.resize(x.slot.size());
    std::iota(x.slot.begin(), x.slot.end(), 0);
    std::iota(x.owner.begin(), x.owner.end(), 0);
    while (x.n() > target) {
        merge_round(x, target, aim_thread_count(n_threads));
    }
    for (int32_t i = 0; i < target; i++) {
        std::copy_n(x.row(i), n_out, out_rows + (size_t) i * n_out);
    }
    if (out_slot) {
        std::copy(x.slot.begin(), x.slot.end(), out_slot);
    }
    if (out_owner) {
        std::copy(x.owner.begin(), x.owner.end(), out_owner);
    }
    return target;
}

int32_t aim_merge_rows(const float * rows, int32_t n, int32_t n_embd, double retain, int32_t n_threads, float * out_rows,
        int32_t * out_slot, int32_t * out_owner) {
    return aim_guard([&]() -> int32_t {
        const int32_t target = aim_checked(aim_merge_count(n, retain));
        aim_expect(rows, "rows");
        aim_expect(out_rows, "out_rows");
        expect_width(n_embd);
        token_set x = { n_embd, 0, n_embd, std::vector<float>(rows, rows + (size_t) n * n_embd), {}, {} };
        return merge_set(x, target, n_threads, n_embd, out_rows, out_slot, out_owner);
    });
}

int32_t aim_merge_by_keys(const float * rows, const float * keys, int32_t n, int32_t n_embd, int32_t n_key, double retain, int32_t n_threads,
        float * out_rows, int32_t * out_slot, int32_t * out_owner) {
    return aim_guard([&]() -> int32_t {
        const int32_t target = aim_checked(aim_merge_count(n, retain));
        aim_expect(rows, "rows");
        aim_expect(keys, "keys");
        aim_expect(out_rows, "out_rows");
        expect_width(n_embd);
        expect_width(n_key);
        token_set x = { n_embd + n_key, n_embd, n_key, std::vector<float>((size_t) n * (n_embd + n_key)), {}, {} };
        for (int32_t i = 0; i < n; i++) {
            float * to = x.row(i);
            std::copy_n(rows + (size_t) i * n_embd, n_embd, to);
            std::copy_n(keys + (size_t) i * n_key, n_key, to + n_embd);
        }
        return merge_set(x, target, n_threads, n_embd, out_rows, out_slot, out_owner);
    });
}
