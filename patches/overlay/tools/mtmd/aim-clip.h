// clip's internals for our sources. The header defines static helpers that each of its users leaves partly unused
#pragma once

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

#include "clip.h"
#include "clip-impl.h"
#include "clip-model.h"
#include "clip-graph.h"

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
