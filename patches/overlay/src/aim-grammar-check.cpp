#include "aim-grammar-bounds.h"
#include "aim-error.h"

#include <algorithm>
#include <vector>

namespace {

// llama.cpp's own look for left recursion calls itself along rules that begin with rules, once for each way that leads to one
constexpr int32_t N_DEEP_MAX  = 4096;
constexpr double  N_STEPS_MAX = 1 << 28;

// which rules a rule begins with, as llama.cpp's look for left recursion sees it: the first of an alternative, and the next one where
// that has an empty alternative. what it misses of rules that are empty in other ways is for the bounds
class rules_graph {
public:
    explicit rules_graph(const llama_grammar_rules & rules) : rules(rules), empty(rules.size()), first(rules.size()) {
        for (size_t i = 0; i < rules.size(); i++) {
            find_empty(i);
        }
        for (size_t i = 0; i < rules.size(); i++) {
            find_first(i);
        }
    }

    const std::vector<uint32_t> & begins_with(uint32_t i) const {
        return first[i];
    }

    size_t size() const {
        return rules.size();
    }

    size_t n_elements(uint32_t i) const {
        return rules[i].size();
    }

    // whether a text with something in it can begin at rule i
    bool has_text(uint32_t i) const {
        std::vector<bool>     seen(rules.size());
        std::vector<uint32_t> todo = { i };

        seen[i] = true;

        while (!todo.empty()) {
            const uint32_t rule = todo.back();
            todo.pop_back();

            for (const auto & element : rules[rule]) {
                if (element.type == LLAMA_GRETYPE_RULE_REF) {
                    if (!seen[element.value]) {
                        seen[element.value] = true;
                        todo.push_back(element.value);
                    }
                } else if (!is_end(element)) {
                    return true;
                }
            }
        }

        return false;
    }

private:
    const llama_grammar_rules & rules;

    std::vector<bool>                  empty;
    std::vector<std::vector<uint32_t>> first; // as often as they are looked at

    static bool is_end(const llama_grammar_element & element) {
        return element.type == LLAMA_GRETYPE_ALT || element.type == LLAMA_GRETYPE_END;
    }

    void find_empty(size_t i) {
        bool is_begin = true;

        for (const auto & element : rules[i]) {
            if (is_begin && is_end(element)) {
                empty[i] = true;
            }
            is_begin = is_end(element);
        }
    }

    void find_first(size_t i) {
        bool is_open = true;

        for (const auto & element : rules[i]) {
            if (is_end(element)) {
                is_open = true;
                continue;
            }

            const bool is_rule = element.type == LLAMA_GRETYPE_RULE_REF;

            if (is_open && is_rule) {
                first[i].push_back(element.value);
            }
            is_open = is_open && is_rule && empty[element.value];
        }
    }
};

std::string name_of(const llama_grammar_parser & grammar, uint32_t rule) {
    for (const auto & [name, id] : grammar.symbol_ids) {
        if (id == rule) {
            return name.substr(0, 64);
        }
    }
    return "?";
}

// follows each rule to those that it begins with, deepest first, without calling itself
class left_walk {
public:
    left_walk(const llama_grammar_parser & grammar, const rules_graph & graph) :
        grammar(grammar), graph(graph), state(graph.size(), NEW), n_deep(graph.size()), n_steps(graph.size()) {}

    void check() {
        for (uint32_t i = 0; i < graph.size(); i++) {
            walk(i);
        }
    }

private:
    enum mark : uint8_t { NEW, OPEN, DONE };

    struct place {
        uint32_t rule;
        size_t   next; // of the rules that it begins with
    };

    const llama_grammar_parser & grammar;
    const rules_graph          & graph;

    std::vector<mark>    state;
    std::vector<int32_t> n_deep;  // rules on the longest way down
    std::vector<double>  n_steps; // elements that llama.cpp would look at
    std::vector<place>   way;

    void walk(uint32_t start) {
        if (state[start] == NEW) {
            open(start);
        }
        while (!way.empty()) {
            const uint32_t rule  = way.back().rule;
            const auto   & below = graph.begins_with(rule);

            if (way.back().next == below.size()) {
                close(rule);
                continue;
            }

            const uint32_t i = below[way.back().next++];

            if (state[i] == OPEN) {
                throw aim_error(AIM_STATUS_INVALID, "has left recursion: rule " + name_of(grammar, i) + " may begin with itself");
            }
            if (state[i] == NEW) {
                open(i);
            }
        }
    }

    void open(uint32_t rule) {
        state[rule] = OPEN;
        way.push_back({ rule, 0 });
    }

    void close(uint32_t rule) {
        int32_t deepest = 0;
        double  steps   = graph.n_elements(rule);

        for (const uint32_t i : graph.begins_with(rule)) {
            deepest = std::max(deepest, n_deep[i]);
            steps  += n_steps[i];
        }
        if (deepest >= N_DEEP_MAX || steps > N_STEPS_MAX) {
            throw aim_error(AIM_STATUS_INVALID, "has too many rules that begin with rules, at " + name_of(grammar, rule));
        }

        n_deep[rule]  = deepest + 1;
        n_steps[rule] = steps;
        state[rule]   = DONE;
        way.pop_back();
    }
};

}

void aim_grammar_check(const llama_grammar_parser & grammar) {
    const auto root = grammar.symbol_ids.find("root");

    if (root == grammar.symbol_ids.end()) {
        aim_fail(AIM_STATUS_INVALID, "has no rule root");
    }

    const rules_graph graph(grammar.rules);

    left_walk(grammar, graph).check();

    if (!graph.has_text(root->second)) {
        aim_fail(AIM_STATUS_INVALID, "allows the empty text alone");
    }
}
