// From the caller's parameters to what one launch needs; plain C++, shared by the library and its tests.
#pragma once

#include <cstdint>

#include "attention_arguments.h"
#include "rap_hybrid_attention.h"

namespace rap {

struct LaunchPlan {
    Arguments arguments;
    int32_t head_dim;
    int32_t warps; // per block, each has 16 query rows
    rap_dtype dtype;
    uint32_t grid[3]; // frames * tiles, heads, batch
};

rap_status make_plan(const rap_hybrid_attention_params* params, LaunchPlan* plan);

} // namespace rap
