// weights packed when they are loaded: a ggml-cpu buffer type per element type

#include "aim-threads.h"
#include "aim-traits.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"

#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

static std::atomic<const aim_kernels *> in_use{ aim_kernels_best() };

const aim_kernels * aim_kernels_in_use(void) { return in_use.load(); }

static const char * kernels_info(void) {
    const aim_kernels * kernels = aim_kernels_in_use();
    return kernels ? kernels->name : "";
}

static bool kernels_use(const char * name) {
    if (name && !*name) {
        in_use = nullptr;
        return true;
    }
    const aim_kernels * wanted = name ? aim_kernels_named(name) : aim_kernels_best();
    if (wanted) {
        in_use = wanted;
    }
    return wanted != nullptr;
}

// --- geometry --------------------------------------------------------------------------------------------------------

// [k, n], or a convolution kernel [w, h, channels, n]
static int64_t columns_of(const ggml_tensor * tensor) { return tensor->ne[3] > 1 ? tensor->ne[3] : tensor->ne[1]; }

size_t aim_weight_size(const ggml_tensor * tensor, aim_pack type) {
    const int64_t n = columns_of(tensor), n_padded = aim_up(n, 16);
    const int64_t k_bytes = aim_k_padded(type, ggml_nelements(tensor) / n) * aim_element_size(type);
    return n_padded * (k_bytes + sizeof(float) + sizeof(int32_t));
}

aim_weight aim_weight_of(const ggml_tensor * tensor) {
    const aim_pack type = aim_packing_of(tensor)->type;
    aim_weight w = {};
    w.n        = columns_of(tensor);
    w.k        = ggml_nelements(tensor) / w.n;
    w.k_padded = aim_k_padded(type, w.k);
    w.k_bytes  = w.k_padded * aim_element_size(type);
    const uint8_t * data = (const uint8_t *) tensor->data;
    const float *   scales = (const float *) (data + aim_up(w.n, 16) * w.k_bytes);
    w.operand = { data, w.k_bytes, type == AIM_PACK_BF16 ? nullptr : scales, (const int32_t *) (scales + aim_up(w.n, 16)) };
    return w;
}

constexpr int64_t MANY_WEIGHTS = 1 << 18; // below it a thread is not worth its start
constexpr int64_t MAX_PACKERS  = 4;

static void pack_weight(ggml_tensor * tensor, const uint8_t * src) {
    const aim_packing * packing = aim_packing_of(tensor);
    const aim_weight w = aim_weight_of(tensor);
    const size_t src_row = ggml_row_size(tensor->type, tensor->ne[0]) * (w.k / tensor->ne[0]);
    const ggml_to_float_t to_float = tensor->type == GGML_TYPE_F32 ? nullptr : ggml_get_type_traits(tensor->type)->to_float;
    uint8_t * dst    = (uint8_t *) tensor->data;
    float *   scales = (float *) (dst + aim_up(w.n, 16) * w.k_bytes);
    int32_t * sums   = (int32_t *) (scales + aim_up(w.n, 16));
    // parts of a weight by a few threads: a tower of 400 million weights takes a second of one
    const bool is_half = tensor->type == GGML_TYPE_F16;
    auto pack = [&](int64_t n0, int64_t n1) {
        std::vector<float>   row(w.k), work(w.k_padded + 64);
        std::vector<uint8_t> block(16 * w.k_bytes);
        for (; n0 < n1; n0 += 16) {
            std::fill(block.begin(), block.end(), (uint8_t) 0);
            for (int64_t i = 0; i < 16; i++) {
                scales[n0 + i] = 0;
                sums[n0 + i]   = 0;
                if (n0 + i < w.n) {
                    const uint8_t * values = src + (n0 + i)*src_row;
                    if (to_float && !is_half) {
                        to_float(values, row.data(), w.k);
                        values = (const uint8_t *) row.data();
                    }
                    packing->kernels->pack_column(packing->type, { (const char *) values, 0, is_half }, w.k, w.k_padded, block.data() + i*w.k_bytes,
                                                  scales + n0 + i, sums + n0 + i, work.data());
                }
            }
            aim_interleave(block.data(), w.k_bytes, dst + n0*w.k_bytes);
        }
    };
    const int64_t n_threads = w.n*w.k < MANY_WEIGHTS ? 1 : std::min<int64_t>(MAX_PACKERS, std::max(1u, std::thread::hardware_concurrency()));
    const int64_t part      = aim_up((w.n + n_threads - 1)/n_threads, 16);
    aim_in_threads((w.n + part - 1)/part, [&](int64_t i) { pack(i*part, std::min((i + 1)*part, w.n)); });
}

// --- buffer ----------------------------------------------------------------------------------------------------------

// one per kernels and type; they live as long as the program, since tensors point to them
static aim_packing * packing_for(const aim_kernels * kernels, aim_pack type) {
    static std::mutex mutex;
    static std::vector<aim_packing *> all;
    std::lock_guard<std::mutex> lock(mutex);
    for (aim_packing * each : all) {
        if (each->kernels == kernels && each->type == type) {
            return each;
        }
    }
    all.push_back(new aim_packing(kernels, type));
    return all.back();
}

static void buffer_free(ggml_backend_buffer_t buffer) { ggml_aligned_free(buffer->context, buffer->size); }

static void * buffer_base(ggml_backend_buffer_t buffer) { return buffer->context; }

static aim_pack type_of(ggml_backend_buffer_type_t buft);

static ggml_status buffer_init_tensor(ggml_backend_buffer_t buffer, ggml_tensor * tensor) {
    if (tensor->view_src == nullptr) {
        ggml::cpu::tensor_traits * traits = packing_for(aim_kernels_in_use(), type_of(buffer->buft));
        tensor->extra = traits;
    }
    return GGML_STATUS_SUCCESS;
}

static void buffer_set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor) && "a packed weight is set as a whole");
    pack_weight(tensor, (const uint8_t *) data);
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) { memset(buffer->context, value, buffer->size); }

static const ggml_backend_buffer_i buffer_interface = {
    /* .free_buffer   = */ buffer_free,
    /* .get_base      = */ buffer_base,
    /* .init_tensor   = */ buffer_init_tensor,
    /* .memset_tensor = */ nullptr,
    /* .set_tensor    = */ buffer_set_tensor,
    /* .get_tensor    = */ nullptr,
    /* .set_tensor_2d = */ nullptr,
    /* .get_tensor_2d = */ nullptr,
    /* .cpy_tensor    = */ nullptr,
    /* .clear         = */ buffer_clear,
    /* .reset         = */ nullptr,
};

struct buffer_type : ggml::cpu::extra_buffer_type {
    aim_pack                 type;
    const char *             name;
    ggml_backend_buffer_type buft;

    buffer_type(aim_pack type, const char * name);

    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * w = op->src[0];
        if (op->op == GGML_OP_IM2COL) {
            return true; // it reads the kernel's shape only
        }
        // without the packing it is a loader that asks where weights of a language model may go: not here
        return op->op == GGML_OP_MUL_MAT && aim_packing_of(w) && w->ne[2] == 1 && w->ne[3] == 1 && op->src[1]->type == GGML_TYPE_F32;
    }

    // asked for every node, of each type: the first one answers for all
    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        if (op->op == GGML_OP_FLASH_ATTN_EXT) {
            return aim_attention_traits(op);
        }
        if (op->op != GGML_OP_MUL_MAT) {
            return nullptr;
        }
        const aim_packing * packing = aim_packing_of(op->src[0]);
        return packing ? const_cast<aim_packing *>(packing) : aim_unpacked_traits(op);
    }
};

static aim_pack type_of(ggml_backend_buffer_type_t buft) { return static_cast<buffer_type *>(static_cast<ggml::cpu::extra_buffer_type *>(buft->context))->type; }

static const char * buft_name(ggml_backend_buffer_type_t buft) { return static_cast<buffer_type *>(static_cast<ggml::cpu::extra_buffer_type *>(buft->context))->name; }

static ggml_backend_buffer_t buft_alloc(ggml_backend_buffer_type_t buft, size_t size) {
    void * data = ggml_aligned_malloc(size);
    if (data == nullptr) {
        GGML_LOG_ERROR("%s: failed to allocate a buffer of %zu bytes\n", __func__, size);
        return nullptr;
    }
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t HUGE_PAGE = 2u << 20; // 10 % of a product's time on a Sapphire Rapids
    const uintptr_t from = ((uintptr_t) data + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE, to = ((uintptr_t) data + size) / HUGE_PAGE * HUGE_PAGE;
    if (to > from) {
        madvise((void *) from, to - from, MADV_HUGEPAGE); // only a wish
    }
#endif
    return ggml_backend_buffer_init(buft, buffer_interface, data, size);
}

static size_t buft_alignment(ggml_backend_buffer_type_t) { return 64; }

static size_t buft_alloc_size(ggml_backend_buffer_type_t buft, const ggml_tensor * tensor) { return aim_weight_size(tensor, type_of(buft)); }

buffer_type::buffer_type(aim_pack type, const char * name) : type(type), name(name) {
    buft.iface = { buft_name, buft_alloc, buft_alignment, /* .get_max_size = */ nullptr, buft_alloc_size, /* .is_host = */ nullptr };
    buft.device  = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
    buft.context = static_cast<ggml::cpu::extra_buffer_type *>(this);
}

static ggml_backend_buffer_type_t buft_of(aim_pack type) {
    static buffer_type i8(AIM_PACK_I8, "AIM_INT8"), i16(AIM_PACK_I16, "AIM_INT16"), bf16(AIM_PACK_BF16, "AIM_BF16");
    return type == AIM_PACK_I8 ? &i8.buft : type == AIM_PACK_I16 ? &i16.buft : &bf16.buft;
}

const aim_packing * aim_packing_of(const ggml_tensor * tensor) {
    const ggml_tensor * weight = tensor && tensor->view_src ? tensor->view_src : tensor;
    if (weight == nullptr || weight->buffer == nullptr || weight->extra == nullptr || weight->buffer->iface.set_tensor != buffer_set_tensor) {
        return nullptr;
    }
    return static_cast<const aim_packing *>(static_cast<ggml::cpu::tensor_traits *>(weight->extra));
}

void aim_add_buffer_types(std::vector<ggml_backend_buffer_type_t> & bufts) {
    if (aim_kernels_best()) {
        for (aim_pack type : { AIM_PACK_I8, AIM_PACK_I16, AIM_PACK_BF16 }) {
            bufts.push_back(buft_of(type));
        }
    }
}

// --- what libmtmd and libllama ask -----------------------------------------------------------------------------------

static ggml_backend_buffer_type_t buffer_type_for(int32_t precision) {
    const aim_kernels * kernels = aim_kernels_in_use();
    if (kernels == nullptr || precision == AIM_PRECISION_EXACT) {
        return nullptr;
    }
    return buft_of(precision == AIM_PRECISION_8 && kernels->has_i8 ? AIM_PACK_I8 : kernels->wide);
}

void * aim_proc_address(const char * name) {
    const struct { const char * name; void * function; } all[] = {
        { "aim_buffer_type",  (void *) static_cast<aim_buffer_type_t>(buffer_type_for) },
        { "aim_kernels_info", (void *) static_cast<aim_kernels_info_t>(kernels_info) },
        { "aim_kernels_use",  (void *) static_cast<aim_kernels_use_t>(kernels_use) },
        { "aim_set_precision", (void *) static_cast<aim_set_precision_t>(aim_set_precision) },
    };
    for (const auto & each : all) {
        if (strcmp(name, each.name) == 0) {
            return each.function;
        }
    }
    return nullptr;
}
