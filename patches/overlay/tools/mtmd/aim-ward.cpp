#include "aim-ward.h"

#include "aim-guard.h"
#include "aim-threads.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#if defined(__GNUC__)
#define AIM_INLINE inline __attribute__((always_inline)) // compiled for the CPU that its caller is compiled for
#define AIM_PLAIN_VECS 2
#else
#define AIM_INLINE inline
#define AIM_PLAIN_VECS 4
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#define AIM_WARD_X86
#endif

namespace {

//
// Gram matrix in doubles: what is near has a distance that is a small difference of large products
// rows are packed in panels: [panel][k][width], so that one vector is one column of several rows. every element is summed
// over k in the same order, so equal rows have a distance of exactly zero, and the order of rows changes nothing
//

constexpr int32_t CHUNK = 256; // columns of the rows at a time: a panel of them stays in the first cache

// FMAs below which a second thread is not worth its start
constexpr double FMAS_PER_THREAD = 2e8;

#if defined(__GNUC__)
template <int BYTES> struct lanes {
    typedef double type   __attribute__((vector_size(BYTES)));
    typedef double stored __attribute__((vector_size(BYTES), aligned(8), may_alias)); // anywhere in memory
};
#else
template <int BYTES> struct lanes {
    typedef double type;
    typedef double stored;
};
#endif

// g[r][c] += sum over k of a[k][r] * b[k][c], N_ROWS rows of one panel with all columns of another
template <typename L, int N_ROWS, int N_VECS>
AIM_INLINE void add_tile(const double * a, const double * b, int32_t n_k, double * g, size_t stride) {
    typedef typename L::type   V;
    typedef typename L::stored M;
    constexpr int n     = sizeof(V)/sizeof(double);
    constexpr int width = N_VECS*n;
    V sum[N_ROWS][N_VECS] = {};
    for (int32_t k = 0; k < n_k; k++, a += width, b += width) {
        V column[N_VECS];
        for (int v = 0; v < N_VECS; v++) {
            column[v] = *(const M *) (b + v*n);
        }
        for (int r = 0; r < N_ROWS; r++) {
            for (int v = 0; v < N_VECS; v++) {
                sum[r][v] += a[r]*column[v];
            }
        }
    }
    for (int r = 0; r < N_ROWS; r++) {
        for (int v = 0; v < N_VECS; v++) {
            *(M *) (g + r*stride + v*n) += sum[r][v];
        }
    }
}

// panel j with itself and all before it
template <typename L, int N_ROWS, int N_VECS>
AIM_INLINE void add_panel(const double * panels, int32_t j, int32_t n_k, double * g, size_t stride) {
    constexpr int width = N_VECS*sizeof(typename L::type)/sizeof(double);
    const size_t size = (size_t) width*n_k;
    for (int32_t i = 0; i <= j; i++) {
        for (int r = 0; r < width; r += N_ROWS) {
            double * to = g + ((size_t) i*width + r)*stride + (size_t) j*width;
            add_tile<L, N_ROWS, N_VECS>(panels + i*size + r, panels + j*size, n_k, to, stride);
        }
    }
}

struct gram_kernel {
    const char * name;
    int32_t      width; // rows in a panel
    bool      (* is_supported)();
    void      (* add_panel)(const double * panels, int32_t j, int32_t n_k, double * g, size_t stride);
};

#if defined(AIM_WARD_X86)
__attribute__((target("avx512f"))) void add_panel_avx512(const double * p, int32_t j, int32_t n_k, double * g, size_t stride) {
    add_panel<lanes<64>, 8, 2>(p, j, n_k, g, stride);
}

__attribute__((target("avx2,fma"))) void add_panel_avx2(const double * p, int32_t j, int32_t n_k, double * g, size_t stride) {
    add_panel<lanes<32>, 4, 2>(p, j, n_k, g, stride);
}

bool has_avx512() { return __builtin_cpu_supports("avx512f"); }
bool has_avx2()   { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

// SSE2, NEON and whatever else has vectors of two; single doubles where the compiler has no vector types
void add_panel_plain(const double * p, int32_t j, int32_t n_k, double * g, size_t stride) {
    add_panel<lanes<16>, 4, AIM_PLAIN_VECS>(p, j, n_k, g, stride);
}

bool has_plain() { return true; }

// best first
const gram_kernel kernels[] = {
#if defined(AIM_WARD_X86)
    { "avx512", 16, has_avx512, add_panel_avx512 },
    { "avx2",    8, has_avx2,   add_panel_avx2   },
#endif
    { "plain",   4, has_plain,  add_panel_plain  },
};

std::atomic<const gram_kernel *> chosen { nullptr };

const gram_kernel & best_kernel() {
    const gram_kernel * asked = chosen;
    return asked ? *asked : *std::find_if(std::begin(kernels), std::end(kernels), [](const gram_kernel & k) { return k.is_supported(); });
}

double weight_of(const aim_ward_input & in, int32_t i) {
    return in.weight ? in.weight[i] : 1.0;
}

// mean of all rows, [n_embd]: products of what is left are smaller, and their differences more exact
std::vector<double> centre(const aim_ward_input & in) {
    std::vector<double> mean(in.n_embd);
    double total = 0;
    for (int32_t i = 0; i < in.n; i++) {
        const float * row = in.rows + (size_t) i*in.n_embd;
        const double  w   = weight_of(in, i);
        for (int32_t k = 0; k < in.n_embd; k++) {
            mean[k] += w*row[k];
        }
        total += w;
    }
    for (double & x : mean) {
        x /= total;
    }
    return mean;
}

// the matrix of a clustering, [n][stride], and what fills it
struct distances {
    size_t              stride; // n, rounded up to whole panels
    std::vector<double> d;

    double * row(int32_t i) { return d.data() + i*stride; }
};

// columns [first, first + n_k) of the rows around the mean, in panels; what is behind the last row stays zero
void pack(const aim_ward_input & in, const std::vector<double> & mean, int32_t first, int32_t n_k, int32_t width, std::vector<double> & panels) {
    for (int32_t i = 0; i < in.n; i++) {
        const float * row = in.rows + (size_t) i*in.n_embd + first;
        double * to = panels.data() + (size_t) (i/width)*width*n_k + i%width;
        for (int32_t k = 0; k < n_k; k++) {
            to[(size_t) k*width] = row[k] - mean[first + k];
        }
    }
}

// all panels on so many threads; which thread takes which changes nothing
void add_chunk(const gram_kernel & kernel, const double * panels, int32_t n_panels, int32_t n_k, distances & x, int32_t n_threads) {
    std::atomic<int32_t> left { n_panels };
    const auto work = [&](int64_t) {
        for (int32_t j = --left; j >= 0; j = --left) { // the last panels have most to do
            kernel.add_panel(panels, j, n_k, x.d.data(), x.stride);
        }
    };
    aim_in_threads(n_threads, work);
}

// upper triangle of the Gram matrix of the rows around their mean
distances gram(const aim_ward_input & in, const std::vector<double> & mean) {
    const gram_kernel & kernel = best_kernel();
    const int32_t n_panels = (in.n + kernel.width - 1)/kernel.width;
    distances x = { (size_t) n_panels*kernel.width, {} };
    x.d.resize(x.stride*x.stride);
    const double fmas = (double) in.n*in.n/2*std::min(in.n_embd, CHUNK);
    const int32_t n_threads = (int32_t) std::min<double>(in.n_threads, 1 + fmas/FMAS_PER_THREAD);
    for (int32_t first = 0; first < in.n_embd; first += CHUNK) {
        const int32_t n_k = std::min(CHUNK, in.n_embd - first);
        std::vector<double> panels(x.stride*n_k);
        pack(in, mean, first, n_k, kernel.width, panels);
        add_chunk(kernel, panels.data(), n_panels, n_k, x, n_threads);
    }
    return x;
}

// twice what joining two rows adds to the sum of squares: for rows of weight one their squared distance
distances costs(const aim_ward_input & in) {
    const std::vector<double> mean = centre(in);
    distances x = gram(in, mean);
    std::vector<double> square(in.n);
    for (int32_t i = 0; i < in.n; i++) {
        square[i] = x.row(i)[i];
    }
    for (int32_t i = 0; i < in.n; i++) {
        const double w = weight_of(in, i);
        for (int32_t j = i + 1; j < in.n; j++) {
            const double v    = weight_of(in, j);
            const double cost = std::max(0.0, square[i] + square[j] - 2*x.row(i)[j]);
            x.row(i)[j] = x.row(j)[i] = in.weight ? cost*(2*w*v/(w + v)) : cost;
        }
    }
    return x;
}

//
// agglomeration. a cluster has the number of its lowest row. each keeps its nearest of those with a higher number: where that
// one is gone, its cost stays as a lower bound (a joined cluster is nearer to nobody than the nearer of its parts was), and
// the nearest is looked for again only if the bound comes first
//

class agglomeration {
  public:
    explicit agglomeration(const aim_ward_input & in) : x(costs(in)), weight(in.n), active(in.n), into(in.n), nearest(in.n, -1),
            bound(in.n), is_stale(in.n) {
        std::iota(active.begin(), active.end(), 0);
        std::iota(into.begin(), into.end(), 0);
        for (int32_t i = 0; i < in.n; i++) {
            weight[i] = weight_of(in, i);
        }
        for (size_t at = 0; at < active.size(); at++) {
            look(at);
        }
    }

    // the cluster of each row when n_clusters are left
    std::vector<int32_t> run(int32_t n_clusters) {
        while ((int32_t) active.size() > n_clusters) {
            const int32_t i = cheapest();
            join(i, nearest[i]);
        }
        std::vector<int32_t> owner(into.size());
        int32_t n = 0;
        for (size_t i = 0; i < into.size(); i++) { // a row is joined into a lower one, whose owner is known
            owner[i] = into[i] == (int32_t) i ? n++ : owner[into[i]];
        }
        return owner;
    }

  private:
    distances            x;
    std::vector<double>  weight;
    std::vector<int32_t> active;  // clusters, rising
    std::vector<int32_t> into;    // what a cluster was joined into; itself while it is active
    std::vector<int32_t> nearest;
    std::vector<double>  bound;
    std::vector<char>    is_stale;

    // the nearest of the cluster at this place of `active`; the lowest of equal ones
    void look(size_t at) {
        const int32_t i = active[at];
        const double * row = x.row(i);
        bound[i]    = std::numeric_limits<double>::infinity();
        is_stale[i] = false;
        for (size_t to = at + 1; to < active.size(); to++) {
            const int32_t j = active[to];
            if (row[j] < bound[i]) {
                bound[i]   = row[j];
                nearest[i] = j;
            }
        }
    }

    // the lower cluster of the pair to join
    int32_t cheapest() {
        for (;;) {
            size_t best = 0;
            for (size_t at = 1; at < active.size(); at++) {
                if (bound[active[at]] < bound[active[best]]) {
                    best = at;
                }
            }
            if (!is_stale[active[best]]) {
                return active[best];
            }
            look(best);
        }
    }

    // j goes into i < j
    void join(int32_t i, int32_t j) {
        active.erase(std::lower_bound(active.begin(), active.end(), j));
        into[j] = i;
        double * row_i = x.row(i);
        const double * row_j = x.row(j);
        const double between = row_i[j];
        const double both    = weight[i] + weight[j];
        bound[i]    = std::numeric_limits<double>::infinity();
        is_stale[i] = false;
        for (const int32_t k : active) {
            if (k == i) {
                continue;
            }
            const double w = weight[k];
            const double cost = ((weight[i] + w)*row_i[k] + (weight[j] + w)*row_j[k] - w*between)/(both + w);
            row_i[k] = x.row(k)[i] = cost;
            if (k < i) {
                came_nearer(k, i, j, cost);
            } else {
                if (cost < bound[i]) {
                    bound[i]   = cost;
                    nearest[i] = k;
                }
                is_stale[k] |= nearest[k] == j;
            }
        }
        weight[i] = both;
    }

    // cluster k has another cost to i > k, which took j in: below the bound by rounding only
    void came_nearer(int32_t k, int32_t i, int32_t j, double cost) {
        if (cost < bound[k]) {
            bound[k]    = cost;
            nearest[k]  = i;
            is_stale[k] = false;
        } else if (nearest[k] == i || nearest[k] == j) {
            is_stale[k] = true;
        }
    }
};

void expect_finite(const aim_ward_input & in) {
    for (int32_t i = 0; i < in.n; i++) {
        const float * row = in.rows + (size_t) i*in.n_embd;
        double sum = 0; // of finite floats it is finite
        for (int32_t k = 0; k < in.n_embd; k++) {
            sum += row[k];
        }
        if (!std::isfinite(sum)) {
            aim_fail(AIM_STATUS_INVALID, "row %d of %d has a value that is no finite number; Ward's clustering cannot take it", i, in.n);
        }
    }
}

void expect_input(const aim_ward_input & in, int32_t n_clusters) {
    aim_expect(in.rows, "rows");
    if (in.n < 1 || in.n > AIM_WARD_MAX_ROWS || in.n_embd < 1) {
        aim_fail(AIM_STATUS_INVALID, "%d rows of width %d cannot be clustered together; the number must lie in [1, %d]", in.n, in.n_embd,
            AIM_WARD_MAX_ROWS);
    }
    if (n_clusters < 1 || n_clusters > in.n) {
        aim_fail(AIM_STATUS_INVALID, "%d rows cannot become %d, it must lie in [1, %d]", in.n, n_clusters, in.n);
    }
    for (int32_t i = 0; in.weight && i < in.n; i++) {
        if (!(in.weight[i] > 0) || !std::isfinite(in.weight[i])) {
            aim_fail(AIM_STATUS_INVALID, "the weight of row %d is %g, it must be above 0 and finite", i, in.weight[i]);
        }
    }
    expect_finite(in);
}

} // namespace

std::vector<int32_t> aim_ward_cluster(const aim_ward_input & in, int32_t n_clusters) {
    expect_input(in, n_clusters);
    if (n_clusters == in.n) { // nothing to compare
        std::vector<int32_t> owner(in.n);
        std::iota(owner.begin(), owner.end(), 0);
        return owner;
    }
    return agglomeration(in).run(n_clusters);
}

std::vector<double> aim_ward_means(const aim_ward_input & in, const std::vector<int32_t> & owner, int32_t n_clusters) {
    std::vector<double> means((size_t) n_clusters*in.n_embd);
    std::vector<double> total(n_clusters);
    for (int32_t i = 0; i < in.n; i++) {
        const float * row = in.rows + (size_t) i*in.n_embd;
        const double  w   = weight_of(in, i);
        double * mean = means.data() + (size_t) owner[i]*in.n_embd;
        for (int32_t k = 0; k < in.n_embd; k++) {
            mean[k] += w*row[k];
        }
        total[owner[i]] += w;
    }
    for (int32_t c = 0; c < n_clusters; c++) {
        for (int32_t k = 0; k < in.n_embd; k++) {
            means[(size_t) c*in.n_embd + k] /= total[c];
        }
    }
    return means;
}

std::vector<int32_t> aim_ward_medoids(const aim_ward_input & in, const std::vector<int32_t> & owner, const std::vector<double> & means) {
    const size_t n_clusters = means.size()/in.n_embd;
    std::vector<int32_t> medoid(n_clusters, -1);
    std::vector<double>  least(n_clusters, std::numeric_limits<double>::infinity());
    for (int32_t i = 0; i < in.n; i++) {
        const float  * row  = in.rows + (size_t) i*in.n_embd;
        const double * mean = means.data() + (size_t) owner[i]*in.n_embd;
        double square = 0;
        for (int32_t k = 0; k < in.n_embd; k++) {
            square += (row[k] - mean[k])*(row[k] - mean[k]);
        }
        // two members are equally far from their mean, but for rounding
        if (medoid[owner[i]] < 0 || square < least[owner[i]]*(1 - 1e-9)) {
            medoid[owner[i]] = i;
            least[owner[i]]  = square;
        }
    }
    return medoid;
}

int32_t aim_ward_use_kernel(const char * name) {
    return aim_guard([&]() -> int32_t {
        const gram_kernel * found = nullptr;
        for (const gram_kernel & kernel : kernels) {
            if (name && strcmp(name, kernel.name) == 0 && kernel.is_supported()) {
                found = &kernel;
            }
        }
        if (name && !found) {
            aim_fail(AIM_STATUS_INVALID, "this CPU has no kernel %s for Ward's clustering", name);
        }
        chosen = found;
        return AIM_STATUS_OK;
    });
}

int32_t aim_ward_rows(const float * rows, const float * weight, int32_t n, int32_t n_embd, int32_t n_keep, int32_t n_threads,
        float * out_rows, int32_t * out_slot, int32_t * out_medoid, int32_t * out_owner) {
    return aim_guard([&]() -> int32_t {
        aim_expect(out_rows, "out_rows");
        const aim_ward_input in = { rows, n, n_embd, weight, aim_thread_count(n_threads) };
        const std::vector<int32_t> owner = aim_ward_cluster(in, n_keep);
        const std::vector<double>  means = aim_ward_means(in, owner, n_keep);
        std::copy(means.begin(), means.end(), out_rows); // the only rounding
        if (out_owner) {
            std::copy(owner.begin(), owner.end(), out_owner);
        }
        for (int32_t i = n - 1; out_slot && i >= 0; i--) {
            out_slot[owner[i]] = i;
        }
        if (out_medoid) {
            const std::vector<int32_t> medoid = aim_ward_medoids(in, owner, means);
            std::copy(medoid.begin(), medoid.end(), out_medoid);
        }
        return n_keep;
    });
}
