// From the caller's parameters to what one launch needs; plain C++, shared by the library and its tests.
#pragma once

#include <cstdint>

#include "rap_hybrid_attention.h"

namespace rap {

struct Tensor {
    const unsigned char* data;
    int64_t batch_stride; // bytes
    int64_t token_stride; // bytes
};

// The kernel's arguments. `window_tokens` keys from the query's own frame, then `rest_tokens` keys: all of the full
// set if the branches are separate, else those outside the window.
struct Arguments {
    Tensor query, key, value, full_key, full_value, output;
    int32_t tiles_per_frame;
    int32_t query_tokens;
    int32_t window_tokens;
    int32_t rest_tokens;
    bool separate;
    float alpha;
    float scale_log2; // scores are exponentiated to base 2
};

struct LaunchPlan {
    Arguments arguments;
    int32_t head_dim;
    int32_t warps; // per block, each has 16 query rows
    rap_dtype dtype;
    uint32_t grid[3]; // frames * tiles, heads, batch
};

constexpr int kRowsPerWarp = 16;

rap_status make_plan(const rap_hybrid_attention_params* params, LaunchPlan* plan);

} // namespace rap
