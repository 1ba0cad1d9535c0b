// From the caller's parameters to what one launch needs; plain C++, shared by the library and its tests.
#pragma once

#include <cstdint>

#include "attention_arguments.h"
#include "rap_hybrid_attention.h"

namespace rap {

// What a plan depends on of a GPU.
struct Device {
    int32_t capability; // 10 * major + minor
    int32_t multiprocessors;
    int32_t shared_bytes; // that a block may have
};

struct LaunchPlan {
    Arguments arguments;
    int32_t head_dim;
    bool warpgroups; // products of warpgroups (wgmma), not of warps
    int32_t warps;   // per block
    rap_dtype dtype;
    uint32_t grid[3]; // ranges of row tiles, heads, batch
    int32_t shared_bytes;
};

rap_status make_plan(const rap_hybrid_attention_params* params, const Device& device, LaunchPlan* plan);

} // namespace rap
