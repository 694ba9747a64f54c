#include "aim-alloc.h"

#include "ggml.h"
#include "ggml-impl.h"

#include <atomic>
#include <new>

// what ggml_init says when it gets no memory; nothing is held there, and nothing was changed
static const char * const NO_MEMORY = "GGML_ASSERT(ctx->mem_buffer != NULL)";

static std::atomic<ggml_abort_callback_t> own { nullptr };

static void * given(void * data, size_t size) {
    if (!data && size) {
        throw std::bad_alloc();
    }

    return data;
}

void * aim_malloc(size_t size) {
    return given(malloc(size), size);
}

void * aim_calloc(size_t n, size_t size) {
    return given(calloc(n, size), n && size ? 1 : 0);
}

void * aim_realloc(void * data, size_t size) {
    return given(realloc(data, size), size);
}

void * aim_aligned_malloc(size_t size) {
    return given(ggml_aligned_malloc(size), size);
}

void aim_free(void ** data) {
    free(*data);
    *data = nullptr;
}

static void on_abort(const char * message) {
    if (strstr(message, NO_MEMORY)) {
        throw std::bad_alloc();
    }

    if (const ggml_abort_callback_t callback = own) {
        callback(message);
    }
}

void aim_set_abort_callback(void (*callback)(const char * message)) {
    own = callback;
    ggml_set_abort_callback(on_abort);
}
