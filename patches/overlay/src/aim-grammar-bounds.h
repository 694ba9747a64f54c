// what llama.cpp's grammars lack: bounds on time and memory, a way to stop them, and a look at a grammar before it is used
#pragma once

#include "llama-grammar.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

// for llama-grammar.cpp: logs what it would print on stderr, and keeps it for aim_grammar_reason()
int aim_grammar_said(FILE * file, const char * format, ...);

// why this thread's last grammar did not parse
const std::string & aim_grammar_reason();

// for llama-grammar.cpp: one more way to go on is looked at, n_elements deep. throws aim_error where the bounds of
// aim_grammar_bounds() are passed (AIM_STATUS_INVALID), or its poll ends the work (AIM_STATUS_ABORTED)
void aim_grammar_step(size_t n_elements);

// throws aim_error, AIM_STATUS_INVALID: for left recursion; where llama.cpp's own look for it would need too much time or stack; for a
// grammar that allows the empty text alone. takes time that grows with the rules' size
void aim_grammar_check(const llama_grammar_parser & grammar);
