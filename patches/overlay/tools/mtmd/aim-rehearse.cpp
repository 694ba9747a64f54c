// files before they are used: what the libraries do with the head of one, as far as it goes without its weights
//
// upstream ends the process where a head is not what it takes for granted, so a process is put at risk for it: rehearsal.py calls this in
// a child. knows files; which of them were looked at before is the caller's affair

#include "aim-mtmd.h"
#include "aim-clip.h"
#include "aim-guard.h"
#include "aim-threads.h"

#include "ggml.h"
#include "gguf.h"
#include "llama.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

// hooks: the struct behind these is defined in clip.cpp only
ggml_context * aim_clip_weights(const clip_ctx * ctx);
ggml_cgraph * aim_clip_graph(clip_ctx * ctx);

using gguf_pointer = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

static gguf_pointer read_head(const char * path) {
    aim_expect(path, "path");
    gguf_pointer head(gguf_init_from_file(path, { /* no_alloc */ true, /* ctx */ nullptr }), gguf_free);
    if (!head) {
        aim_fail(AIM_STATUS_UNSUPPORTED, "the head is no GGUF that llama.cpp reads");
    }
    return head;
}

//
// language models
//

// tokens of a few texts, and the texts of all tokens
static void use_vocabulary(const llama_vocab * vocab) {
    if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE) {
        return;
    }
    const std::string texts[] = { "", "\n", " Is it 3.14 \xC3\xA4 \xE4\xBD\xA0\xF0\x9F\x98\x80\t<s></s><|im_end|> '\x01", std::string(64, 'x') };
    for (const auto & text : texts) {
        std::vector<llama_token> tokens(4 * text.size() + 16);
        for (const bool special : { false, true }) {
            llama_tokenize(vocab, text.data(), int32_t(text.size()), tokens.data(), int32_t(tokens.size()), true, special);
        }
    }
    char piece[64];
    for (llama_token id = 0; id < llama_vocab_n_tokens(vocab); id++) {
        llama_token_to_piece(vocab, id, piece, sizeof(piece), 0, true);
        llama_vocab_is_eog(vocab, id);
    }
}

int32_t aim_rehearse_text(const char * path) {
    return aim_guard([&]() -> int32_t {
        aim_expect(path, "path");
        ggml_backend_dev_t none[] = { nullptr };
        llama_model_params params = llama_model_default_params();
        params.no_alloc     = true;
        params.load_mode    = LLAMA_LOAD_MODE_NONE;
        params.devices      = none;
        params.n_gpu_layers = 0;
        llama_backend_init();
        std::unique_ptr<llama_model, decltype(&llama_model_free)> model(llama_model_load_from_file(path, params), llama_model_free);
        if (!model) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "it does not load");
        }
        use_vocabulary(llama_model_get_vocab(model.get()));
        llama_context_params how = llama_context_default_params();
        how.n_ctx = how.n_batch = how.n_ubatch = 512;
        how.n_threads = how.n_threads_batch = 1;
        std::unique_ptr<llama_context, decltype(&llama_free)> context(llama_init_from_model(model.get(), how), llama_free);
        if (!context) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "it makes no context");
        }
        return AIM_STATUS_OK;
    });
}

//
// vision towers
//

using names = std::set<std::string>;

static void add_names(names & loaded, const clip_ctx * ctx) {
    ggml_context * weights = ctx ? aim_clip_weights(ctx) : nullptr;
    for (ggml_tensor * t = weights ? ggml_get_first_tensor(weights) : nullptr; t; t = ggml_get_next_tensor(weights, t)) {
        loaded.insert(t->name);
    }
}

// what a limit of a matrix's input or output belongs to: clip reads these tensors as numbers. "" for another tensor
static std::string limited_by(const std::string & name) {
    for (const char * end : { ".input_max", ".input_min", ".output_max", ".output_min" }) {
        const size_t at = name.rfind(end);
        if (at != std::string::npos && at + std::string(end).size() == name.size()) {
            return name.substr(0, at) + ".weight";
        }
    }
    return "";
}

// a tensor that nobody reads may be one that was meant and has another name
static void check_all_loaded(const char * path, const names & loaded, bool hears) {
    const gguf_pointer head = read_head(path);
    for (int64_t i = 0; i < gguf_get_n_tensors(head.get()); i++) {
        const std::string name = gguf_get_tensor_name(head.get(), i);
        const bool of_hearing = name.rfind("a.", 0) == 0 || name.rfind("mm.a.", 0) == 0;
        if (!loaded.count(name) && !loaded.count(limited_by(name)) && !(of_hearing && !hears)) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "its tensor '%s' is none that its projector has", name.c_str());
        }
    }
}

static const ggml_tensor * source_of(const ggml_tensor * t, const names & loaded) {
    for (; t; t = t->view_src ? t->view_src : t->op == GGML_OP_CONT ? t->src[0] : nullptr) {
        if (loaded.count(t->name)) {
            return t;
        }
    }
    return nullptr;
}

// ggml repeats what is added or multiplied until it fits: half a bias, twice, is as good to it as a bias
// and adds numbers of float32 alone
static void check_added(ggml_cgraph * graph, const names & loaded) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op != GGML_OP_ADD && node->op != GGML_OP_MUL && node->op != GGML_OP_SUB && node->op != GGML_OP_DIV) {
            continue;
        }
        const ggml_tensor * given = node->src[1];
        const ggml_tensor * weight = source_of(given, loaded);
        if (weight && given->type != GGML_TYPE_F32 && node->type == GGML_TYPE_F32) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "its tensor '%s' is of type %s, and f32 is needed", weight->name, ggml_type_name(given->type));
        }
        for (int d = 0; weight && d < GGML_MAX_DIMS; d++) {
            if (given->ne[d] != node->ne[d] && given->ne[d] != 1) {
                aim_fail(AIM_STATUS_UNSUPPORTED, "its tensor '%s' has %d values in a place for %d", weight->name, int(given->ne[d]), int(node->ne[d]));
            }
        }
    }
}

struct clip_contexts {
    clip_init_result all;

    ~clip_contexts() {
        for (clip_ctx * ctx : { all.ctx_v, all.ctx_a, all.ctx_gen_a }) {
            clip_free(ctx);
        }
    }
};

int32_t aim_rehearse_vision(const char * path) {
    return aim_guard([&]() -> int32_t {
        aim_expect(path, "path");
        clip_context_params params = {};
        params.flash_attn_type  = CLIP_FLASH_ATTN_TYPE_AUTO;
        params.image_min_tokens = params.image_max_tokens = -1;
        params.warmup   = true;
        params.no_alloc = true;
        const clip_contexts made = { clip_init(path, params) };
        clip_ctx * vision = made.all.ctx_v;
        if (!vision) {
            aim_fail(AIM_STATUS_UNSUPPORTED, made.all.ctx_a ? "it has no vision tower" : "it does not load");
        }
        names loaded;
        for (const clip_ctx * ctx : { made.all.ctx_v, made.all.ctx_a, made.all.ctx_gen_a }) {
            add_names(loaded, ctx);
        }
        check_all_loaded(path, loaded, made.all.ctx_a != nullptr);
        check_added(aim_clip_graph(vision), loaded);
        return AIM_STATUS_OK;
    });
}

//
// weights
//

struct file_closer {
    void operator()(FILE * file) const { fclose(file); }
};

static bool holds_nan(const std::vector<uint8_t> & data, size_t n_bytes) {
    std::vector<float> numbers(n_bytes / sizeof(float));
    memcpy(numbers.data(), data.data(), numbers.size() * sizeof(float));
    return std::any_of(numbers.begin(), numbers.end(), [](float x) { return std::isnan(x); });
}

// whether all numbers of a tensor are finite, as far as its type says so block by block
static bool is_finite(FILE * file, const gguf_context * head, int64_t i, std::vector<uint8_t> & part) {
    const ggml_type type = gguf_get_tensor_type(head, i);
    const bool is_limit = type == GGML_TYPE_F32 && !limited_by(gguf_get_tensor_name(head, i)).empty(); // infinite: there is none
    const size_t most = part.size() / ggml_type_size(type) * ggml_type_size(type);
    size_t left = gguf_get_tensor_size(head, i);
    const uint64_t begin = gguf_get_data_offset(head) + gguf_get_tensor_offset(head, i);
#ifdef _WIN32
    bool ok = _fseeki64(file, int64_t(begin), SEEK_SET) == 0;
#else
    bool ok = fseeko(file, off_t(begin), SEEK_SET) == 0;
#endif
    for (; ok && left > 0; left -= std::min(left, most)) {
        const size_t n = std::min(left, most);
        ok = fread(part.data(), 1, n, file) == n && (is_limit ? !holds_nan(part, n) : ggml_validate_row_data(type, part.data(), n));
    }
    return ok;
}

int32_t aim_check_weights(const char * path, int32_t n_threads) {
    return aim_guard([&]() -> int32_t {
        const gguf_pointer head = read_head(path);
        const int64_t n = gguf_get_n_tensors(head.get());
        std::atomic<int64_t> next { 0 }, bad { n };
        const auto work = [&](int64_t) {
            std::unique_ptr<FILE, file_closer> file(ggml_fopen(path, "rb"));
            std::vector<uint8_t> part(1 << 20); // stays in a core's cache
            for (int64_t i = next++; i < n && i < bad; i = next++) {
                if (!file || !is_finite(file.get(), head.get(), i, part)) {
                    bad = std::min(bad.load(), i);
                }
            }
        };
        aim_in_threads(aim_thread_count(n_threads), work);
        if (bad < n) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "its tensor '%s' holds NaN or infinity, or cannot be read", gguf_get_tensor_name(head.get(), bad));
        }
        return AIM_STATUS_OK;
    });
}
