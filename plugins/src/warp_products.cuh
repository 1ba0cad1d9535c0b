// Products of a warp's 32 query rows with a tile of keys: mma.sync, whose operands ldmatrix brings into registers.
#pragma once

#include "key_walk.cuh"

namespace rap {

template <class Element, int HeadDimension> struct WarpProducts : WarpShape {
    using T = Element;
    static constexpr int kHeadDim = HeadDimension;
    // Keys whose scores a step holds; with more the sums of 128 channels would not stay in registers.
    static constexpr int kStepKeys = kHeadDim == 64 ? kKeysPerTile : kKeysPerTile / 2;
    static constexpr int kTailKeys = kStepKeys;
    static constexpr bool kAlwaysActs = false; // a warp without rows rests
    using Layout = TileLayout<kKeysPerTile>;

    // scores = query keys^T.
    template <int Keys>
    static __device__ __forceinline__ void score(float (&scores)[kRowGroups][Keys / 8][4],
                                                 const uint32_t (&query)[kRowGroups][kHeadDim / 16][4],
                                                 uint32_t keys) {
        const int lane = threadIdx.x % 32;
        // Matrices: lower and upper octet of channels for keys 0-7, then for keys 8-15.
        const uint32_t place = keys + Layout::offset(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
        for (int group = 0; group < kRowGroups; ++group) {
#pragma unroll
            for (int n = 0; n < Keys / 8; ++n) {
                scores[group][n][0] = scores[group][n][1] = scores[group][n][2] = scores[group][n][3] = 0.0f;
            }
        }
#pragma unroll
        for (int step = 0; step < kHeadDim / 16; ++step) {
#pragma unroll
            for (int n = 0; n < Keys / 8; n += 2) {
                uint32_t b[4];
                tile::load_matrices(b, Layout::along(place, step) + n * 8 * Layout::kRowBytes);
#pragma unroll
                for (int group = 0; group < kRowGroups; ++group) {
                    tile::multiply<T>(scores[group][n], query[group][step], b[0], b[1]);
                    tile::multiply<T>(scores[group][n + 1], query[group][step], b[2], b[3]);
                }
            }
        }
    }

    // sum += weights values.
    template <int Keys>
    static __device__ __forceinline__ void accumulate(float (&sum)[kRowGroups][kHeadDim / 8][4],
                                                      const uint32_t (&weights)[kRowGroups][kKeysPerTile / 16][4],
                                                      uint32_t values) {
        const int lane = threadIdx.x % 32;
        // Matrices: keys 0-7 and 8-15 of the first octet of channels, then of the second.
        const uint32_t place = values + Layout::offset(lane % 16, lane / 16);
#pragma unroll
        for (int step = 0; step < Keys / 16; ++step) {
#pragma unroll
            for (int n = 0; n < kHeadDim / 8; n += 2) {
                uint32_t b[4];
                tile::load_matrices_transposed(b, Layout::along(place, n / 2) + step * 16 * Layout::kRowBytes);
#pragma unroll
                for (int group = 0; group < kRowGroups; ++group) {
                    tile::multiply<T>(sum[group][n], weights[group][step], b[0], b[1]);
                    tile::multiply<T>(sum[group][n + 1], weights[group][step], b[2], b[3]);
                }
            }
        }
    }

    // Nothing is ever under way.
    static __device__ __forceinline__ void settle() {}
    static __device__ __forceinline__ void publish_copies() {}
};

} // namespace rap
