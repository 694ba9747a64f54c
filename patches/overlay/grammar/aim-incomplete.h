// put in front of llama.cpp's json-schema-to-grammar.cpp (CMakeLists.txt): the one line that it writes to stderr says that a part
// of the schema was given up, and that the grammar allows more. here that is an error: aim_grammar_incomplete throws
#pragma once

#include <cstdio>

extern "C" int aim_grammar_incomplete(FILE * file, const char * fmt, ...);

#undef fprintf
#define fprintf aim_grammar_incomplete
