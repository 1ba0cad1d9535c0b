// What one launch of the kernel is given.
#pragma once

#include <cstdint>

namespace rap {

struct Tensor {
    const unsigned char* data;
    int64_t batch_stride; // bytes
    int64_t token_stride; // bytes
};

// `window_tokens` keys from the query's own frame, then `rest_tokens` keys: all of the full set if the branches are
// separate, else those outside the window.
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

constexpr int kRowsPerWarp = 16;
constexpr float kLog2E = 1.4426950408889634f;

} // namespace rap
