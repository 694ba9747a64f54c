// memory for ggml's own sources, most of which believe that malloc never fails: they write to what it gave, or end the process.
// included before them (CMakeLists.txt, no hook): where memory is refused, std::bad_alloc is thrown through them, to the guarded
// function that was called (aim-edge.h). what they free is forgotten, so that nothing is freed twice on the way
// nothing changes for buffers of tensors: ggml_aligned_malloc, whose callers look at what they get
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
#include <cstdlib>
#include <string>
extern "C" {
#endif

#if defined(_WIN32) && !defined(__MINGW32__)
#    ifdef GGML_BUILD
#        define AIM_ALLOC_API __declspec(dllexport)
#    else
#        define AIM_ALLOC_API __declspec(dllimport)
#    endif
#else
#    define AIM_ALLOC_API __attribute__((visibility("default")))
#endif

// each throws std::bad_alloc
AIM_ALLOC_API void * aim_malloc (size_t size);
AIM_ALLOC_API void * aim_calloc (size_t n, size_t size);
AIM_ALLOC_API void * aim_realloc(void * data, size_t size);
AIM_ALLOC_API void * aim_aligned_malloc(size_t size); // as ggml_aligned_malloc

// frees what is there, and leaves NULL there
AIM_ALLOC_API void aim_free(void ** data);

// takes the place of ggml_set_abort_callback: `callback` is called in the same way, unless ggml aborts for want of memory where the
// exception can leave it: std::bad_alloc is thrown then
AIM_ALLOC_API void aim_set_abort_callback(void (*callback)(const char * message));

#ifdef __cplusplus
}
#endif

#ifdef AIM_ALLOC_ALIGNED // ggml-cpu.c's threads
#    define ggml_aligned_malloc aim_aligned_malloc
#elif defined(AIM_ALLOC)
#    define malloc(size)        aim_malloc(size)
#    define calloc(n, size)     aim_calloc(n, size)
#    define realloc(data, size) aim_realloc(data, size)
#    ifndef __cplusplus
#        define free(data) aim_free((void **) &(data))
#    endif
#endif
