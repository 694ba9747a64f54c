// put in front of llama-grammar.cpp (CMakeLists.txt), which prints on stderr why a grammar does not parse, and the whole of
// it: whoever gives one could write there. the reason is logged instead, as any other error
#pragma once

#include "llama-impl.h"

#include <cstdarg>
#include <cstdio>
#include <string>

static int aim_grammar_said(FILE * file, const char * format, ...) {
    va_list args;
    va_start(args, format);
    int n;
    if (file == stderr) {
        char text[1024]; // a reason quotes the rest of the grammar
        n = std::vsnprintf(text, sizeof(text), format, args);
        const std::string said = text;
        LLAMA_LOG_ERROR("%s\n", said.substr(0, said.find("\n\n")).c_str());
    } else {
        n = std::vfprintf(file, format, args);
    }
    va_end(args);
    return n;
}

#define fprintf aim_grammar_said
