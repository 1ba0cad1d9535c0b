// Products of a warpgroup's 64 query rows with a tile of keys: wgmma, which reads the keys where they lie in shared memory.
// For compute capability 9.0 alone.
#pragma once

#include "key_walk.cuh"

namespace rap {

template <class Element, int HeadDimension> struct WarpgroupProducts : WarpgroupShape {
    using T = Element;
    static constexpr int kHeadDim = HeadDimension;
    static constexpr int kStepKeys = kKeysPerTile; // whose scores a step holds
    static constexpr int kTailKeys = 32;           // that a step can be cut to
    static constexpr bool kAlwaysActs = true;      // four warps have to act alike
    using Layout = TileLayout<kKeysPerTile>;

    // scores = query keys^T. The last product's sums are finished too.
    template <int Keys>
    static __device__ __forceinline__ void score(float (&scores)[kRowGroups][Keys / 8][4],
                                                 const uint32_t (&query)[kRowGroups][kHeadDim / 16][4],
                                                 uint32_t keys) {
        tile::fence_products();
#pragma unroll
        for (int step = 0; step < kHeadDim / 16; ++step) {
            // 16 channels are 32 bytes of a panel's rows; the swizzle goes by the bits of the address.
            const uint32_t place = keys + step / 4 * Layout::kPanelBytes + step % 4 * 32;
            tile::multiply_shared<T, false>(scores[0], query[0][step], descriptor(place), step > 0);
        }
        tile::commit_products();
        tile::wait_products<0>();
    }

    // sum += weights values; under way when this returns.
    template <int Keys>
    static __device__ __forceinline__ void accumulate(float (&sum)[kRowGroups][kHeadDim / 8][4],
                                                      const uint32_t (&weights)[kRowGroups][kKeysPerTile / 16][4],
                                                      uint32_t values) {
        tile::fence_products();
#pragma unroll
        for (int step = 0; step < Keys / 16; ++step) {
            const uint32_t place = values + step * 16 * Layout::kRowBytes;
            tile::multiply_shared<T, true>(sum[0], weights[0][step], descriptor(place), true);
        }
        tile::commit_products();
    }

    // Wait for what is under way.
    static __device__ __forceinline__ void settle() { tile::wait_products<0>(); }

    // What this thread copied is seen by products.
    static __device__ __forceinline__ void publish_copies() { tile::publish_copies(); }

  private:
    // Of an operand in 16-byte units, as the PTX ISA lays it out for wgmma: its start, what lies between panels, between
    // groups of 8 rows, and the 128-byte swizzle.
    static __device__ __forceinline__ uint64_t descriptor(uint32_t place) {
        constexpr uint64_t kFixed = uint64_t{Layout::kPanelBytes / 16} << 16 |
                                    uint64_t{8 * Layout::kRowBytes / 16} << 32 | uint64_t{1} << 62;
        return kFixed | (place & 0x3ffff) >> 4;
    }
};

} // namespace rap
