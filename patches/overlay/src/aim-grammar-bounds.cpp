#include "aim-grammar-bounds.h"
#include "aim-calls.h"
#include "aim-error.h"
#include "aim-llama.h"
#include "aim-stop.h"

#include "llama-impl.h"

#include <cstdarg>
#include <optional>

//
// why it does not parse
//

static thread_local std::string reason;

const std::string & aim_grammar_reason() {
    return reason;
}

int aim_grammar_said(FILE * file, const char * format, ...) {
    char text[1024]; // a reason quotes the rest of the grammar

    va_list args;
    va_start(args, format);
    const int n = file == stderr ? vsnprintf(text, sizeof(text), format, args) : vfprintf(file, format, args);
    va_end(args);

    if (file == stderr) {
        reason = text;
        reason = reason.substr(0, reason.find("\n\n"));
        LLAMA_LOG_ERROR("%s\n", reason.c_str());
    }

    return n;
}

//
// bounds
//

namespace {

#define AIM_FEWER "; write it with fewer: no repetition of what may be empty or overlaps with what follows"

struct bounds {
    int32_t n_ms;
    int64_t n_bytes_max;
    int64_t t_end_us;
    int64_t n_bytes = 0; // of all steps so far: at least what their lists hold now
    aim_stop stop;

    void step(size_t n_elements) {
        n_bytes += sizeof(llama_grammar_stack) + N_BYTES_NODE + n_elements*sizeof(llama_grammar_stack::value_type);

        if (n_bytes > n_bytes_max) {
            aim_fail(AIM_STATUS_INVALID, "has more ways to go on than fit in %lld MiB" AIM_FEWER, (long long) (n_bytes_max >> 20));
        }
        if (ggml_time_us() > t_end_us) {
            aim_fail(AIM_STATUS_INVALID, "has more ways to go on than can be tried in %g s" AIM_FEWER, n_ms/1e3);
        }
        if (aim_stop::ask(&stop)) {
            aim_fail(AIM_STATUS_ABORTED, "stopped");
        }
    }

private:
    static constexpr int64_t N_BYTES_NODE = 64; // a set's node and the heap's own
};

}

static thread_local std::optional<bounds> bound;

void aim_grammar_step(size_t n_elements) {
    if (bound) {
        bound->step(n_elements);
    }
}

static bool go_on(void *) {
    return false;
}

void aim_grammar_bounds(int32_t n_ms, int64_t n_bytes, aim_stop_callback poll, void * data) {
    bound.reset();

    if (n_ms > 0) {
        bound.emplace(bounds{ n_ms, n_bytes, ggml_time_us() + 1000*int64_t(n_ms), 0, aim_stop(poll ? poll : go_on, data) });
    }
}

//
// a grammar
//

static const char SAID[] = "parse: error parsing grammar: "; // llama.cpp, before the reason

llama_sampler * aim_grammar_init(const llama_vocab * vocab, const char * text) {
    return aim_guarded(aim_llama_last(), [&]() -> llama_sampler * {
        aim_expect(vocab, "vocab");
        aim_expect(text, "text");

        llama_grammar_parser grammar(vocab);
        reason.clear();

        if (!grammar.parse(text)) {
            const size_t begin = reason.rfind(SAID, 0) == 0 ? sizeof(SAID) - 1 : 0;
            throw aim_error(AIM_STATUS_INVALID, "does not parse: " + reason.substr(begin));
        }

        aim_grammar_check(grammar);

        llama_sampler * sampler = llama_sampler_init_grammar(vocab, text, "root");

        if (!sampler) {
            aim_fail(AIM_STATUS_INVALID, "is refused by llama.cpp");
        }

        return sampler;
    });
}
