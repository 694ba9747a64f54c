// libaim-grammar: from a JSON schema to a grammar for llama_sampler_init_grammar. the rules are llama.cpp's own (common/), which
// libllama does not have; this library is those few files and nothing else
#pragma once

#include "aim-status.h"

#include <stdint.h>

#if defined(_WIN32)
#    define AIM_GRAMMAR_API __declspec(dllexport)
#else
#    define AIM_GRAMMAR_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// the grammar of a schema, both UTF-8 and zero-terminated. returns the length of its text without the zero; `out` is written only
// where n_out is larger than that. below zero: a status (AIM_STATUS_INVALID: no JSON, or no schema that has a grammar)
AIM_GRAMMAR_API int32_t aim_json_schema_to_grammar(const char * schema, char * out, int32_t n_out);

// why the last call of this thread failed, "" if it did not
AIM_GRAMMAR_API const char * aim_grammar_last_error(void);
AIM_GRAMMAR_API int32_t      aim_grammar_last_status(void);

#ifdef __cplusplus
}
#endif
