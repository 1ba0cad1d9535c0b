// Which tiles of keys a tile of query rows meets, in which order, and how they come into shared memory.
//
// First those of the full branch alone, then those with keys of the window, so that when a window's weights are
// applied both normalisers are known and one sum serves both branches. If the window lies in several tiles they are
// met twice: measured, then applied.
#pragma once

#include "attention_arguments.h"

namespace rap {

// Where a tile's vectors lie: panels of 64 channels, in each the keys' rows of 128 bytes, whose 16-byte vectors are
// swizzled so that 8 rows of one column lie in different banks. It is what wgmma calls the 128-byte swizzle. A tile
// starts at a multiple of 1024 bytes.
template <int Keys> struct TileLayout {
    static constexpr int kRowBytes = 128;
    static constexpr int kVectors = kRowBytes / kVectorBytes; // of a row in a panel
    static constexpr int kPanelBytes = Keys * kRowBytes;

    // Of a vector among the first two of a row.
    static __device__ __forceinline__ uint32_t offset(int row, int vector) {
        return row * kRowBytes + ((vector ^ (row & 7)) * kVectorBytes);
    }

    // From there `pairs` further along the row: one register serves all vectors, as no address carries beyond a row.
    static __device__ __forceinline__ uint32_t along(uint32_t place, int pairs) {
        constexpr int kPairs = kVectors / 2;
        return (place ^ (pairs % kPairs * 2 * kVectorBytes)) + pairs / kPairs * kPanelBytes;
    }
};

// Columns of a tile: `keys` exist, and those from `first` to before `past` belong to the window.
struct Columns {
    int32_t keys, first, past;

    // Leave the first ones behind.
    __device__ __forceinline__ void pass(int columns) { keys -= columns, first -= columns, past -= columns; }
};

template <int Keys> struct Walk {
    int32_t full_tiles;
    int32_t window_start;  // the frame's first window key
    int32_t window_tiles;  // that hold keys of the window
    int32_t first_window;  // number of the first of them; those of a separate window count on after the full ones
    int32_t rest_tiles;    // that hold none
    int32_t steps;
    bool within; // the window lies in tiles of the full branch

    __device__ __forceinline__ Walk(const Arguments& a, int frame) {
        full_tiles = (a.full_tokens + Keys - 1) / Keys;
        window_start = frame * a.window_tokens;
        within = !a.separate && a.full_tokens > 0 && a.window_tokens > 0;
        first_window = within ? window_start / Keys : full_tiles;
        const int past = within ? window_start % Keys : 0;
        window_tiles = (past + a.window_tokens + Keys - 1) / Keys;
        if (a.window_tokens == 0) {
            window_tiles = 0;
        }
        rest_tiles = within ? full_tiles - window_tiles : full_tiles;
        steps = rest_tiles + (window_tiles > 1 ? 2 : 1) * window_tiles;
    }

    __device__ __forceinline__ int different_tiles() const { return rest_tiles + window_tiles; }

    // The tile of a step.
    __device__ __forceinline__ int tile(int step) const {
        if (step < rest_tiles) {
            return within && step >= first_window ? step + window_tiles : step;
        }
        const int number = step - rest_tiles;
        return first_window + (number < window_tiles ? number : number - window_tiles);
    }

    // Keys of a tile that exist.
    __device__ __forceinline__ int keys(const Arguments& a, int tile) const {
        const int left = tile < full_tiles ? a.full_tokens - tile * Keys
                                           : a.window_tokens - (tile - full_tiles) * Keys;
        return left < Keys ? left : Keys;
    }

    // Of the tile of a step, which has keys of the window.
    __device__ __forceinline__ Columns columns(const Arguments& a, int step) const {
        const int number = tile(step), count = keys(a, number);
        const int first = within ? window_start - number * Keys : 0;
        const int past = within ? first + a.window_tokens : count;
        return {count, first, past < count ? past : count};
    }
};

// The vectors of this block's head in a token of its batch entry.
template <int HeadDim> __device__ __forceinline__ const unsigned char* head_of(const Tensor& tensor, int64_t token) {
    return tensor.data + blockIdx.z * tensor.batch_stride + token * tensor.token_stride +
           int64_t{blockIdx.y} * (HeadDim * 2);
}

// Field by field: a choice of addresses would put the arguments of a kernel that computes them into local memory.
__device__ __forceinline__ Tensor either(bool first, const Tensor& one, const Tensor& other) {
    return {first ? one.data : other.data, first ? one.batch_stride : other.batch_stride,
            first ? one.token_stride : other.token_stride};
}

// Start copying a tile to `target`, by all threads of the block.
template <int HeadDim, int Keys, int Threads>
__device__ __forceinline__ void fetch_tile(const Arguments& a, const Walk<Keys>& walk, int tile, uint32_t target) {
    using Layout = TileLayout<Keys>;
    constexpr int kVectors = HeadDim * 2 / kVectorBytes; // of a key
    constexpr int kRows = Threads / kVectors;            // that are copied at once
    static_assert(Threads % kVectors == 0 && Keys % kRows == 0 && kRows % 8 == 0, "copies must come out even");
    const bool own = tile >= walk.full_tiles; // of a window that is not among the full keys
    const int first = own ? walk.window_start + (tile - walk.full_tiles) * Keys : tile * Keys;
    const int keys = walk.keys(a, tile);
    const int row = threadIdx.x / kVectors, vector = threadIdx.x % kVectors;
    const uint32_t place = Layout::along(target + Layout::offset(row, vector % 2), vector / 2);
#pragma unroll 1
    for (int values = 0; values < 2; ++values) {
        const Tensor tensor = either(values > 0, either(own, a.value, a.full_value), either(own, a.key, a.full_key));
        const unsigned char* source = head_of<HeadDim>(tensor, first) + vector * kVectorBytes;
#pragma unroll
        for (int pass = 0; pass < Keys / kRows; ++pass) {
            const int number = row + pass * kRows;
            const bool valid = number < keys;
            // A row that does not exist is zeroed, not read: a NaN there would survive its weight of 0.
            tile::copy_async(place + values * Keys * HeadDim * 2 + pass * kRows * Layout::kRowBytes,
                             source + (valid ? number : 0) * tensor.token_stride, valid);
        }
    }
}

} // namespace rap
