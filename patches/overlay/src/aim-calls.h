// what libllama's table of guarded functions needs of others, and others of it
#pragma once

#include "aim-error.h"

#include "llama.h"

#include <functional>

// how this thread's last call into libllama ended
aim_outcome & aim_llama_last();

// runs f, which decodes in ctx. if it throws, ctx attends as before, and makes its graphs and their buffers anew next time: an
// exception may have left them half made
LLAMA_API int32_t aim_decoding(llama_context * ctx, const std::function<int32_t()> & f);
