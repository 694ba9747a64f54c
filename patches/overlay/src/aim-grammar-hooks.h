// put in front of llama-grammar.cpp (CMakeLists.txt) and so no hook in it: two words of that file mean more there
#pragma once

#include "aim-grammar-bounds.h"

// all that it includes, so that only its own lines are changed
#include "llama-impl.h"
#include "llama-sampler.h"
#include "llama-vocab.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

// why a grammar does not parse is printed on stderr, and the whole of it: whoever gives one could write there. it is logged instead
#define fprintf aim_grammar_said

// the one list that is taken from is that of the ways to go on which are not looked at yet (todo, in llama_grammar_advance_stack):
// each of them is a step. there may be more than can be counted, and upstream has no bound
#define pop_back() pop_back(), aim_grammar_step(curr_stack_candidate.size())
