#include "aim-grammar.h"

#include "aim-error.h"
#include "common.h"
#include "json-schema-to-grammar.h"

#include <cstdarg>
#include <cstring>

#include "aim-incomplete.h" // last: it takes fprintf away

static aim_outcome & last_outcome() {
    static thread_local aim_outcome outcome;
    return outcome;
}

// the three functions of common.cpp that the converter needs; the rest of it needs half of common/

std::string string_repeat(const std::string & str, size_t n) {
    std::string out;
    out.reserve(str.size() * n);

    for (size_t i = 0; i < n; i++) {
        out += str;
    }
    return out;
}

std::string string_join(const std::vector<std::string> & values, const std::string & separator) {
    std::string out;

    for (size_t i = 0; i < values.size(); i++) {
        out += (i ? separator : "") + values[i];
    }
    return out;
}

std::vector<std::string> string_split(const std::string & str, const std::string & delimiter) {
    std::vector<std::string> parts;
    size_t begin = 0;

    for (size_t end; (end = str.find(delimiter, begin)) != std::string::npos; begin = end + delimiter.size()) {
        parts.push_back(str.substr(begin, end - begin));
    }
    parts.push_back(str.substr(begin));
    return parts;
}

int aim_grammar_incomplete(FILE * /*file*/, const char * fmt, ...) {
    char line[512];

    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);

    line[strcspn(line, "\n")] = 0;
    const char * text = strstr(line, ": ");

    throw aim_error(AIM_STATUS_INVALID, text ? text + 2 : line);
}

int32_t aim_json_schema_to_grammar(const char * schema, char * out, int32_t n_out) {
    return aim_guarded(last_outcome(), [&]() -> int32_t {
        aim_expect(schema, "schema");

        std::string grammar;

        try {
            grammar = json_schema_to_grammar(common_json::parse(schema), /*force_gbnf =*/ true);
        } catch (const aim_error &) {
            throw;
        } catch (const std::bad_alloc &) {
            throw;
        } catch (const std::exception & e) { // the schema's fault, whatever the type
            throw aim_error(AIM_STATUS_INVALID, e.what());
        }
        if (grammar.size() > INT32_MAX - 1) {
            aim_fail(AIM_STATUS_INVALID, "the schema's grammar has %zu bytes", grammar.size());
        }

        const int32_t n = (int32_t) grammar.size();

        if (n < n_out) {
            memcpy(out, grammar.c_str(), grammar.size() + 1);
        }
        return n;
    });
}

const char * aim_grammar_last_error(void) {
    return last_outcome().text.c_str();
}

int32_t aim_grammar_last_status(void) {
    return last_outcome().status;
}
