// The fused hybrid attention: one pass over the keys, window first.
//
// A block has 16 query rows per warp, all of one latent frame and one head. It walks over tiles of 32 keys with the
// online softmax of FlashAttention (arXiv 2205.14135, 2307.08691): first the frame's own keys, after which the sum is
// the window branch; its normalised rows are kept, and with shared branches the same sum goes on over the other keys
// to become the full branch. So every score and every product with V is computed once, for any number of keys.
//
// tile_ops.cuh, or an emulation of it, is included first.
#pragma once

#include "attention_arguments.h"

namespace rap {

constexpr int kKeysPerTile = 32;
constexpr int kStages = 3;
constexpr int kVectorBytes = 16;

// As many as fit the register file without spilling: a warp holds its query rows, sums and window part.
constexpr int blocks_per_multiprocessor(int head_dim, int warps) { return warps == 8 ? 1 : head_dim == 64 ? 3 : 2; }

template <int HeadDim, int Warps> struct Geometry {
    static constexpr int kRowBytes = HeadDim * 2;
    static constexpr int kVectors = kRowBytes / kVectorBytes; // per row
    static constexpr int kThreads = Warps * 32;
    static constexpr int kTileBytes = kKeysPerTile * kRowBytes;
    static constexpr int kStageBytes = 2 * kTileBytes; // keys, then values
    static constexpr int kOutputBytes = Warps * kRowsPerWarp * kRowBytes;
    static constexpr int kSharedBytes = kStages * kStageBytes > kOutputBytes ? kStages * kStageBytes : kOutputBytes;
    static_assert(kThreads % kVectors == 0 && kKeysPerTile % (kThreads / kVectors) == 0, "copies must come out even");
    static_assert(kSharedBytes <= 48 << 10, "more needs an opt-in per device");

    // Byte offset of a 16-byte vector in a tile; the swizzle keeps 8 rows of one column in different banks.
    static __device__ __forceinline__ int offset(int row, int vector) {
        return row * kRowBytes + ((vector ^ (row & 7)) * kVectorBytes);
    }
};

// Start copying key tile number `tile` of this head into its stage; beyond the last tile nothing is copied.
template <int HeadDim, int Warps>
__device__ __forceinline__ void fetch_tile(const Arguments& a, unsigned char* shared, int tile, int window_start,
                                           int64_t batch, int head) {
    using G = Geometry<HeadDim, Warps>;
    const int window_tiles = (a.window_tokens + kKeysPerTile - 1) / kKeysPerTile;
    const int rest_tiles = (a.rest_tokens + kKeysPerTile - 1) / kKeysPerTile;
    if (tile >= window_tiles + rest_tiles) {
        return;
    }
    const bool window = tile < window_tiles;
    const Tensor key = window ? a.key : a.full_key;
    const Tensor value = window ? a.value : a.full_value;
    const int tokens = window ? a.window_tokens : a.rest_tokens;
    const int vector = threadIdx.x % G::kVectors;
    const int64_t column = int64_t{head} * G::kRowBytes + vector * kVectorBytes;
    unsigned char* stage = shared + (tile % kStages) * G::kStageBytes;
#pragma unroll
    for (int pass = 0; pass < kKeysPerTile * G::kVectors / G::kThreads; ++pass) {
        const int row = threadIdx.x / G::kVectors + pass * (G::kThreads / G::kVectors);
        const int number = (window ? tile : tile - window_tiles) * kKeysPerTile + row;
        int token = number;
        if (window) {
            token += window_start;
        } else if (!a.separate && number >= window_start) {
            token += a.window_tokens; // the window has been seen
        }
        const bool valid = number < tokens;
        // A row that does not exist is zeroed, not read: a NaN there would survive its weight of 0.
        const int64_t safe = valid ? token : 0;
        const int offset = G::offset(row, vector);
        tile::copy_async(stage + offset, key.data + batch * key.batch_stride + safe * key.token_stride + column, valid);
        tile::copy_async(stage + G::kTileBytes + offset,
                         value.data + batch * value.batch_stride + safe * value.token_stride + column, valid);
    }
}

// The running softmax of a lane's two query rows (lane / 4 and 8 below) and its share of their sums over V.
template <class T, int HeadDim> struct RunningSoftmax {
    float sum[HeadDim / 8][4];
    float largest[2];
    float normaliser[2]; // of this lane's keys alone until `total`

    __device__ __forceinline__ void reset() {
#pragma unroll
        for (int n = 0; n < HeadDim / 8; ++n) {
            sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0f;
        }
        largest[0] = largest[1] = -INFINITY;
        normaliser[0] = normaliser[1] = 0.0f;
    }

    __device__ __forceinline__ float total(int row) const {
        const float pair = normaliser[row] + tile::shuffle_xor(normaliser[row], 1);
        return pair + tile::shuffle_xor(pair, 2);
    }

    // Turn scores into weights relative to the new largest score and rescale what has been summed so far.
    __device__ __forceinline__ void weigh(float (&scores)[kKeysPerTile / 8][4], float scale_log2) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            float top = largest[row];
#pragma unroll
            for (int n = 0; n < kKeysPerTile / 8; ++n) {
                top = fmaxf(top, fmaxf(scores[n][2 * row], scores[n][2 * row + 1]));
            }
            top = fmaxf(top, tile::shuffle_xor(top, 1));
            top = fmaxf(top, tile::shuffle_xor(top, 2));
            const float shrink = tile::exp2((largest[row] - top) * scale_log2);
            const float shift = top * scale_log2;
            largest[row] = top;
            normaliser[row] *= shrink;
#pragma unroll
            for (int n = 0; n < kKeysPerTile / 8; ++n) {
#pragma unroll
                for (int i = 2 * row; i < 2 * row + 2; ++i) {
                    scores[n][i] = tile::exp2(scores[n][i] * scale_log2 - shift);
                    normaliser[row] += scores[n][i];
                }
            }
#pragma unroll
            for (int n = 0; n < HeadDim / 8; ++n) {
                sum[n][2 * row] *= shrink;
                sum[n][2 * row + 1] *= shrink;
            }
        }
    }

    // sum += weights V. Accumulator fragments of two neighbouring key octets are one operand fragment.
    __device__ __forceinline__ void accumulate(const float (&weights)[kKeysPerTile / 8][4],
                                               const unsigned char* values) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int step = 0; step < kKeysPerTile / 16; ++step) {
            const float(&low)[4] = weights[2 * step];
            const float(&high)[4] = weights[2 * step + 1];
            const uint32_t a[4] = {tile::pack<T>(low[0], low[1]), tile::pack<T>(low[2], low[3]),
                                   tile::pack<T>(high[0], high[1]), tile::pack<T>(high[2], high[3])};
#pragma unroll
            for (int n = 0; n < HeadDim / 8; n += 2) {
                uint32_t b[4];
                // Matrices: keys 0-7 and 8-15 of the first octet of channels, then of the second.
                tile::load_matrices_transposed(
                    b, values + Geometry<HeadDim, 4>::offset(step * 16 + lane % 16, n + lane / 16));
                tile::multiply<T>(sum[n], a, b[0], b[1]);
                tile::multiply<T>(sum[n + 1], a, b[2], b[3]);
            }
        }
    }
};

// The work of one block; blocks are numbered [frames * tiles_per_frame, heads, batch].
template <class T, int HeadDim, int Warps> __device__ __forceinline__ void attend(const Arguments& a) {
    using G = Geometry<HeadDim, Warps>;
    unsigned char* shared = tile::shared_storage<G::kSharedBytes>();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int frame = blockIdx.x / a.tiles_per_frame;
    const int head = blockIdx.y;
    const int64_t batch = blockIdx.z;
    const int window_start = frame * a.window_tokens;
    // Of the frame's queries: the first of this warp's 16, and of the lane's two rows the upper one.
    const int first_row = (blockIdx.x % a.tiles_per_frame) * (Warps * kRowsPerWarp) + warp * kRowsPerWarp;
    const int upper_row = first_row + lane / 4;
    const int64_t frame_token = int64_t{frame} * a.query_tokens;

#pragma unroll
    for (int tile = 0; tile < kStages - 1; ++tile) {
        fetch_tile<HeadDim, Warps>(a, shared, tile, window_start, batch, head);
        tile::commit_copies();
    }

    uint32_t query[HeadDim / 16][4];
    const unsigned char* query_head = a.query.data + batch * a.query.batch_stride + int64_t{head} * G::kRowBytes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = upper_row + 8 * half;
        const bool valid = row < a.query_tokens;
        const unsigned char* source = query_head + (frame_token + (valid ? row : 0)) * a.query.token_stride;
#pragma unroll
        for (int step = 0; step < HeadDim / 16; ++step) {
            const uint32_t* pair = reinterpret_cast<const uint32_t*>(source + step * 32 + (lane % 4) * 4);
            query[step][half] = valid ? pair[0] : 0u;
            query[step][half + 2] = valid ? pair[4] : 0u;
        }
    }

    RunningSoftmax<T, HeadDim> running;
    running.reset();
    float window_part[HeadDim / 8][4] = {};

    const auto keep_window = [&] {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            const float factor = a.alpha / running.total(row);
#pragma unroll
            for (int n = 0; n < HeadDim / 8; ++n) {
                window_part[n][2 * row] = running.sum[n][2 * row] * factor;
                window_part[n][2 * row + 1] = running.sum[n][2 * row + 1] * factor;
            }
        }
        if (a.separate) {
            running.reset();
        }
    };

    const int window_tiles = (a.window_tokens + kKeysPerTile - 1) / kKeysPerTile;
    const int tiles = window_tiles + (a.rest_tokens + kKeysPerTile - 1) / kKeysPerTile;
    for (int tile = 0; tile < tiles; ++tile) {
        tile::wait_copies<kStages - 2>();
        // After this everybody sees the tile, and nobody reads the stage that is filled next any more.
        tile::block_barrier();
        fetch_tile<HeadDim, Warps>(a, shared, tile + kStages - 1, window_start, batch, head);
        tile::commit_copies();

        if (tile == window_tiles && window_tiles > 0) {
            keep_window();
        }
        const unsigned char* keys = shared + (tile % kStages) * G::kStageBytes;
        float scores[kKeysPerTile / 8][4] = {};
#pragma unroll
        for (int step = 0; step < HeadDim / 16; ++step) {
#pragma unroll
            for (int n = 0; n < kKeysPerTile / 8; n += 2) {
                uint32_t b[4];
                // Matrices: lower and upper octet of channels for keys 0-7, then for keys 8-15.
                tile::load_matrices(
                    b, keys + G::offset(n * 8 + lane % 8 + (lane / 16) * 8, step * 2 + (lane / 8) % 2));
                tile::multiply<T>(scores[n], query[step], b[0], b[1]);
                tile::multiply<T>(scores[n + 1], query[step], b[2], b[3]);
            }
        }
        const bool window = tile < window_tiles;
        const int left = window ? a.window_tokens - tile * kKeysPerTile
                                : a.rest_tokens - (tile - window_tiles) * kKeysPerTile;
        if (left < kKeysPerTile) {
#pragma unroll
            for (int n = 0; n < kKeysPerTile / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (n * 8 + (lane % 4) * 2 + i % 2 >= left) {
                        scores[n][i] = -INFINITY;
                    }
                }
            }
        }
        running.weigh(scores, a.scale_log2);
        running.accumulate(scores, keys + G::kTileBytes);
    }
    if (tiles == window_tiles) {
        keep_window();
    }

    // The stages become the place where each warp turns its fragments into whole rows.
    tile::block_barrier();
    unsigned char* rows = shared + warp * kRowsPerWarp * G::kRowBytes;
    const float beta = 1.0f - a.alpha;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        const float total = running.total(row);
        const float factor = beta == 0.0f ? 0.0f : beta / total;
#pragma unroll
        for (int n = 0; n < HeadDim / 8; ++n) {
            const float low = running.sum[n][2 * row] * factor + window_part[n][2 * row];
            const float high = running.sum[n][2 * row + 1] * factor + window_part[n][2 * row + 1];
            unsigned char* place = rows + G::offset(lane / 4 + 8 * row, n) + (lane % 4) * 4;
            *reinterpret_cast<uint32_t*>(place) = tile::pack<T>(low, high);
        }
    }
    tile::warp_barrier();
    unsigned char* output_head = const_cast<unsigned char*>(a.output.data) + batch * a.output.batch_stride +
                                 int64_t{head} * G::kRowBytes;
#pragma unroll
    for (int pass = 0; pass < kRowsPerWarp * G::kVectors / 32; ++pass) {
        const int index = pass * 32 + lane;
        const int row = index / G::kVectors, vector = index % G::kVectors;
        if (first_row + row < a.query_tokens) {
            unsigned char* target = output_head + (frame_token + first_row + row) * a.output.token_stride;
            *reinterpret_cast<uint4*>(target + vector * kVectorBytes) =
                *reinterpret_cast<const uint4*>(rows + G::offset(row, vector));
        }
    }
}

template <class T, int HeadDim, int Warps>
__global__ void __launch_bounds__(Warps * 32, blocks_per_multiprocessor(HeadDim, Warps))
    hybrid_attention_kernel(const Arguments a) {
    attend<T, HeadDim, Warps>(a);
}

} // namespace rap
