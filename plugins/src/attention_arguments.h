// What one launch of the kernel is given.
#pragma once

#include <cstdint>

namespace rap {

struct Tensor {
    const unsigned char* data;
    int64_t batch_stride; // bytes
    int64_t token_stride; // bytes
};

struct Arguments {
    Tensor query, key, value, full_key, full_value, output;
    int32_t frames;
    int32_t tiles_per_frame; // of query rows
    int32_t tiles_per_block;
    int32_t query_tokens;    // per frame
    int32_t window_tokens;   // that a frame's queries see as their window; 0: no window branch
    int32_t full_tokens;     // that all queries see; 0: no full branch
    int32_t slots;           // tiles of keys that shared memory holds
    bool separate;           // the window is no part of the full keys
    float alpha;
    float scale_log2; // scores are exponentiated to base 2
};

constexpr int kRowsPerGroup = 16; // of query rows, what one matrix instruction takes of a warp
constexpr int kVectorBytes = 16;
constexpr int kTilesAhead = 2; // are being copied while one is computed
constexpr int kLeastSlots = kTilesAhead + 1;
constexpr float kLog2E = 1.4426950408889634f;

// What the two kinds of products make of a block. `kWarpRows`: query rows of a warp. `kKeysPerTile`: keys of a tile.
// `kKeepsKeys`: the keys may stay in shared memory for several tiles of query rows.
template <int RowGroups, int Keys, bool KeepsKeys> struct Shape {
    static constexpr int kRowGroups = RowGroups;
    static constexpr int kWarpRows = RowGroups * kRowsPerGroup;
    static constexpr int kKeysPerTile = Keys;
    static constexpr int kSlotBytesPerChannel = Keys * 2 * 2; // keys and values
    static constexpr bool kKeepsKeys = KeepsKeys;
};

using WarpShape = Shape<2, 32, false>;
using WarpgroupShape = Shape<1, 64, true>;

} // namespace rap
