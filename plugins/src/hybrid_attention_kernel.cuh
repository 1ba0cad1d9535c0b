// The fused hybrid attention: one pass over the keys, the window last.
//
// A block has a range of one head's tiles of query rows, each of one latent frame. For a tile it walks over the tiles of
// keys (key_walk.cuh) with both softmaxes (hybrid_softmax.cuh). If shared memory has a slot for every tile of keys they
// stay there, and only the block's first tile of rows waits for copies; else the slots are a ring.
//
// tile_ops.cuh, or an emulation of it, is included first.
#pragma once

#include "hybrid_softmax.cuh"
#include "key_walk.cuh"

namespace rap {

// As many as fit the register file without spilling: a warp holds its query rows and their sums.
constexpr int blocks_per_multiprocessor(int warps) { return 8 / warps; }

template <class Products>
using QueryFragments = uint32_t[Products::kRowGroups][Products::kHeadDim / 16][4];

// The rows of a warp as operands of a product; rows from `rows` on are zeros. `source`: the first row, of one head.
template <class Products>
__device__ __forceinline__ void load_query(QueryFragments<Products>& query, const unsigned char* source,
                                           int64_t token_stride, int rows) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int group = 0; group < Products::kRowGroups; ++group) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = group * kRowsPerGroup + half * 8 + lane / 4;
            const bool valid = row < rows;
            const unsigned char* place = source + (valid ? row : 0) * token_stride + (lane % 4) * 4;
#pragma unroll
            for (int step = 0; step < Products::kHeadDim / 16; ++step) {
                const uint32_t* pair = reinterpret_cast<const uint32_t*>(place + step * 32);
                query[group][step][half] = valid ? pair[0] : 0u;
                query[group][step][half + 2] = valid ? pair[4] : 0u;
            }
        }
    }
}

// The four lanes of a quad hold parts of four vectors, part[n] of vector n; afterwards each holds one vector whole.
__device__ __forceinline__ void exchange_in_quad(uint32_t (&part)[4]) {
    const int lane = threadIdx.x % 4;
#pragma unroll
    for (int distance = 1; distance < 4; distance *= 2) {
        const bool upper = (lane & distance) != 0;
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            if ((n & distance) == 0) {
                const uint32_t received = tile::shuffle_xor(upper ? part[n] : part[n + distance], distance);
                part[n] = upper ? received : part[n];
                part[n + distance] = upper ? part[n + distance] : received;
            }
        }
    }
}

template <class Products>
__device__ __forceinline__ void store_output(const HybridSoftmax<Products>& softmax, unsigned char* target,
                                             int64_t token_stride, int rows) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int group = 0; group < Products::kRowGroups; ++group) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = group * kRowsPerGroup + half * 8 + lane / 4;
#pragma unroll
            for (int octet = 0; octet < Products::kHeadDim / 8; octet += 4) {
                uint32_t vector[4];
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    const float(&sum)[4] = softmax.sum[group][octet + n];
                    vector[n] = tile::pack<typename Products::T>(sum[2 * half], sum[2 * half + 1]);
                }
                exchange_in_quad(vector);
                if (row < rows) {
                    unsigned char* place = target + row * token_stride + (octet + lane % 4) * kVectorBytes;
                    *reinterpret_cast<uint4*>(place) = {vector[0], vector[1], vector[2], vector[3]};
                }
            }
        }
    }
}

// What a warp knows of one tile of query rows.
template <class Products> struct RowTile {
    static constexpr int kTile = Products::kKeysPerTile;
    static constexpr int kTileBytes = kTile * Products::kHeadDim * 2; // of keys; as many of values follow

    QueryFragments<Products> query;
    uint32_t weights[Products::kRowGroups][kTile / 16][4]; // of the last step, whose product may still be under way
    HybridSoftmax<Products> softmax;

    // Keys of the full branch alone. Here and below `Keys` are computed, of which `keys` or `columns.keys` exist.
    template <int Keys> __device__ __forceinline__ void add(const Arguments& a, int keys, uint32_t place) {
        float scores[Products::kRowGroups][Keys / 8][4];
        Products::template score<Keys>(scores, query, place);
        softmax.template weigh<Keys>(scores, keys, a.scale_log2);
        accumulate<Keys>(scores, place);
    }

    // All keys of the window, and with them others of the full branch.
    template <int Keys>
    __device__ __forceinline__ void add_window(const Arguments& a, const Columns& columns, bool within,
                                               uint32_t place) {
        float scores[Products::kRowGroups][Keys / 8][4];
        Products::template score<Keys>(scores, query, place);
        softmax.template weigh_window<Keys>(scores, columns, within, a.scale_log2);
        softmax.blend(a.alpha, within, a.full_tokens > 0);
        softmax.template apply_blend<Keys>(scores, columns);
        accumulate<Keys>(scores, place);
        Products::settle();
    }

    // The same in two visits of each of several tiles, with `softmax.blend` between.
    template <int Keys>
    __device__ __forceinline__ void measure_window(const Arguments& a, const Columns& columns, bool within,
                                                   uint32_t place) {
        float scores[Products::kRowGroups][Keys / 8][4];
        Products::template score<Keys>(scores, query, place);
        softmax.template weigh_window<Keys>(scores, columns, within, a.scale_log2);
    }

    template <int Keys>
    __device__ __forceinline__ void add_measured(const Arguments& a, const Columns& columns, uint32_t place) {
        float scores[Products::kRowGroups][Keys / 8][4];
        Products::template score<Keys>(scores, query, place);
        softmax.template exponentiate<Keys>(scores, columns, a.scale_log2);
        softmax.template apply_blend<Keys>(scores, columns);
        accumulate<Keys>(scores, place);
        Products::settle();
    }

  private:
    // Accumulator fragments of two neighbouring key octets are one operand fragment.
    template <int Keys>
    __device__ __forceinline__ void accumulate(const float (&scores)[Products::kRowGroups][Keys / 8][4],
                                               uint32_t slot) {
#pragma unroll
        for (int group = 0; group < Products::kRowGroups; ++group) {
#pragma unroll
            for (int n = 0; n < Keys / 8; ++n) {
                const float(&pair)[4] = scores[group][n];
                weights[group][n / 2][n % 2 * 2] = tile::pack<typename Products::T>(pair[0], pair[1]);
                weights[group][n / 2][n % 2 * 2 + 1] = tile::pack<typename Products::T>(pair[2], pair[3]);
            }
        }
        Products::template accumulate<Keys>(softmax.sum, weights, slot + kTileBytes);
    }
};

// Where the tiles of a walk lie: every tile in a slot of its own if there are enough of them (`Products::kKeepsKeys`), so
// that later tiles of query rows find them; else the slots are a ring.
template <class Products, int Threads> struct KeySlots {
    static constexpr int kTile = Products::kKeysPerTile;
    static constexpr int kSlotBytes = Products::kSlotBytesPerChannel * Products::kHeadDim;

    uint32_t shared;
    int32_t frame_inside = -1; // whose window is in the slots
    bool kept = false;
    bool fetching = false;

    __device__ __forceinline__ uint32_t place(const Walk<kTile>& walk, int step) const {
        return shared + static_cast<uint32_t>(kept ? walk.tile(step) : step % kLeastSlots) * kSlotBytes;
    }

    __device__ __forceinline__ void fetch(const Arguments& a, const Walk<kTile>& walk, int step) const {
        if (step < (kept ? walk.different_tiles() : walk.steps)) {
            fetch_tile<Products::kHeadDim, kTile, Threads>(a, walk, walk.tile(step), place(walk, step));
        }
        tile::commit_copies();
    }

    // Begin the walk of a tile of query rows.
    __device__ __forceinline__ void begin(const Arguments& a, const Walk<kTile>& walk, int frame) {
        const bool first = frame_inside < 0;
        const bool inside = walk.within || a.window_tokens == 0 || frame == frame_inside;
        kept = Products::kKeepsKeys && walk.different_tiles() <= a.slots;
        fetching = !kept || first || !inside;
        frame_inside = frame;
        if (!fetching) {
            return;
        }
        if (!first) {
            tile::block_barrier(); // everybody has read the slots
        }
#pragma unroll
        for (int step = 0; step < kTilesAhead; ++step) {
            fetch(a, walk, step);
        }
    }

    // Wait until a step's tile is here.
    __device__ __forceinline__ void await(const Arguments& a, const Walk<kTile>& walk, int step) const {
        if (!fetching) {
            return;
        }
        tile::wait_copies<kTilesAhead - 1>();
        Products::publish_copies();
        if (!kept) {
            Products::settle(); // a slot that is still read is about to be filled
        }
        // After this everybody sees the tile, and nobody reads the slot that is filled next any more.
        tile::block_barrier();
        fetch(a, walk, step + kTilesAhead);
    }
};

// The rows of a warp in a tile of them.
template <class Products, int Warps> struct RowRange {
    int32_t frame;
    int32_t first; // of the frame
    int32_t rows;  // that exist; not positive if none does

    __device__ __forceinline__ RowRange(const Arguments& a, int row_tile) {
        frame = row_tile / a.tiles_per_frame;
        const int number = row_tile - frame * a.tiles_per_frame;
        first = (number * Warps + threadIdx.x / 32) * Products::kWarpRows;
        rows = a.query_tokens - first;
    }

    // The first row's, or that of any row that exists.
    __device__ __forceinline__ int token(const Arguments& a) const {
        return frame * a.query_tokens + (rows > 0 ? first : 0);
    }
};

// One tile of query rows of a block.
template <class Products, int Warps>
__device__ __forceinline__ void attend_rows(const Arguments& a, KeySlots<Products, Warps * 32>& slots, int row_tile) {
    constexpr int kTile = Products::kKeysPerTile;
    const RowRange<Products, Warps> range(a, row_tile);
    const Walk<kTile> walk(a, range.frame);
    slots.begin(a, walk, range.frame);
    const bool active = Products::kAlwaysActs || range.rows > 0;
    RowTile<Products> own;
    if (active) {
        load_query<Products>(own.query, head_of<Products::kHeadDim>(a.query, range.token(a)),
                             a.query.token_stride, range.rows);
        own.softmax.reset();
    }
    constexpr int kKeys = Products::kStepKeys, kTail = Products::kTailKeys;
    constexpr int kStepBytes = kKeys * TileLayout<kTile>::kRowBytes;
    int step = 0;
#pragma unroll 1
    for (; step < walk.rest_tiles; ++step) {
        slots.await(a, walk, step);
        uint32_t place = slots.place(walk, step);
#pragma unroll 1
        for (int keys = active ? walk.keys(a, walk.tile(step)) : 0; keys > 0; keys -= kKeys, place += kStepBytes) {
            if (kTail < kKeys && keys <= kTail) {
                own.template add<kTail>(a, keys, place);
            } else {
                own.template add<kKeys>(a, keys, place);
            }
        }
    }
    if (walk.window_tiles == 1) {
        slots.await(a, walk, step);
        const Columns columns = walk.columns(a, step);
        if (active && kTail < kKeys && columns.keys <= kTail) {
            own.template add_window<kTail>(a, columns, walk.within, slots.place(walk, step));
        } else if (active) {
            own.template add_window<kTile>(a, columns, walk.within, slots.place(walk, step));
        }
    } else if (walk.window_tiles > 1) {
        Products::settle(); // sums are scaled while the window is measured
#pragma unroll 1
        for (; step < walk.rest_tiles + walk.window_tiles; ++step) {
            slots.await(a, walk, step);
            uint32_t place = slots.place(walk, step);
            Columns columns = walk.columns(a, step);
#pragma unroll 1
            for (; active && columns.keys > 0; columns.pass(kKeys), place += kStepBytes) {
                own.template measure_window<kKeys>(a, columns, walk.within, place);
            }
        }
        if (active) {
            own.softmax.blend(a.alpha, walk.within, a.full_tokens > 0);
        }
#pragma unroll 1
        for (; step < walk.steps; ++step) {
            slots.await(a, walk, step);
            uint32_t place = slots.place(walk, step);
            Columns columns = walk.columns(a, step);
#pragma unroll 1
            for (; active && columns.keys > 0; columns.pass(kKeys), place += kStepBytes) {
                own.template add_measured<kKeys>(a, columns, place);
            }
        }
    } else if (active) {
        Products::settle();
        own.softmax.normalise();
    }
    if (active) {
        // Found anew: over the walk there is no register to keep it in.
        const RowRange<Products, Warps> again(a, tile::anew(row_tile));
        store_output(own.softmax,
                     const_cast<unsigned char*>(head_of<Products::kHeadDim>(a.output, again.token(a))),
                     a.output.token_stride, again.rows);
    }
}

// The work of one block; blocks are numbered [ranges of row tiles, heads, batch].
template <class Products, int Warps> __device__ __forceinline__ void attend(const Arguments& a) {
    KeySlots<Products, Warps * 32> slots{tile::shared_storage()};
    if constexpr (Products::kKeepsKeys) {
        const int first = blockIdx.x * a.tiles_per_block;
        const int all = a.frames * a.tiles_per_frame;
        for (int row_tile = first; row_tile < first + a.tiles_per_block && row_tile < all; ++row_tile) {
            attend_rows<Products, Warps>(a, slots, row_tile);
        }
    } else {
        attend_rows<Products, Warps>(a, slots, blockIdx.x);
    }
}

template <class Products, int Warps>
__global__ void __launch_bounds__(Warps * 32, blocks_per_multiprocessor(Warps))
    hybrid_attention_kernel(const Arguments a) {
    attend<Products, Warps>(a);
}

} // namespace rap
