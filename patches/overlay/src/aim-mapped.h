// the mapped file of a model whose weights were copied elsewhere
#pragma once

#include <cstddef>

// the pages that lie wholly inside [data, data + size) leave this process: the weights there were copied into a buffer of
// their own (repacked, or on a device) and would be held twice. Reading them again reads the file again
void aim_release_mapped(const void * data, size_t size);
