// a vision tower's weights in the packed form that our CPU kernels take
#pragma once

#include "ggml-cpp.h"

#include <cstdint>
#include <vector>

// precision of the next tower that this thread loads, see aim-cpu.h; those after it are exact
void aim_clip_precision(int32_t precision);

// belongs to one clip_ctx
class aim_clip_packed {
public:
    // whether weights are to be packed: not with a device, not for exact results
    bool begin(ggml_backend_t backend);

    // moves the weights that `graph` only multiplies with out of the context's plain buffer; before that is allocated
    void pack(ggml_context * weights, ggml_cgraph * graph);

    // whether other than exact arithmetic was asked for, whatever this machine has
    bool is_asked() const { return asked; }

    // exact where this CPU has no kernels of ours; weights may still be in ggml's repacked types
    int32_t precision() const { return wanted; }

private:
    ggml_backend_dev_t device = nullptr;
    int32_t            wanted = 0;
    bool               asked  = false;

    ggml_backend_buffer_type_t type_for(const ggml_tensor * weight) const; // null: the plain buffer
    std::vector<ggml_backend_buffer_ptr> buffers;
};
