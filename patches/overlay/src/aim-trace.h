// what one prefill kept and measured, in the units of the C interface
#pragma once

#include <cstdint>
#include <map>
#include <vector>

struct aim_trace {
    struct stage {
        std::vector<int32_t> kept; // visual rows of the call that entered the stage, sorted

        int32_t n_rows        = 0;
        double  prefill_ms    = 0.0;
        double  importance_ms = 0.0; // scoring and selecting at the stage's last layer
    };

    std::vector<stage> stages;

    std::map<int32_t, std::vector<float>> importance; // il -> one score per visual row that entered layer il
};
