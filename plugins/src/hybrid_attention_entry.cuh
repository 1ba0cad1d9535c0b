// The kernel for plans: TensorRT gives it the input tensors, 32-bit words, and the output tensor, all contiguous.
//
// Compiled with RAP_ELEMENT (Half or Bfloat16), RAP_HEAD_DIM and RAP_WARPS. tile_ops.cuh is included first.
#pragma once

#include "hybrid_attention_kernel.cuh"

namespace rap {

struct Sizes {
    int32_t frames, heads, query_tokens, key_tokens, full_tokens;
};

template <int HeadDim, int Warps>
__device__ __forceinline__ Arguments arguments_of(const void* query, const void* key, const void* value,
                                                  const void* full_key, const void* full_value, const void* output,
                                                  const Sizes& sizes, float alpha) {
    static_assert(HeadDim == 64 || HeadDim == 128, "the kernel has these head widths");
    constexpr float kScale = HeadDim == 64 ? 0.125f : 0.08838834764831845f; // 1 / sqrt(HeadDim)
    constexpr int kRows = Warps * kRowsPerWarp;
    const int64_t row = int64_t{sizes.heads} * HeadDim * 2;
    const auto tensor = [row](const void* data, int64_t tokens) {
        return Tensor{static_cast<const unsigned char*>(data), tokens * row, row};
    };
    const int64_t query_rows = int64_t{sizes.frames} * sizes.query_tokens;
    const int64_t key_rows = int64_t{sizes.frames} * sizes.key_tokens;
    Arguments a{};
    a.query = tensor(query, query_rows);
    a.key = tensor(key, key_rows);
    a.value = tensor(value, key_rows);
    a.full_key = tensor(full_key, sizes.full_tokens);
    a.full_value = tensor(full_value, sizes.full_tokens);
    a.output = tensor(output, query_rows);
    a.tiles_per_frame = (sizes.query_tokens + kRows - 1) / kRows;
    a.query_tokens = sizes.query_tokens;
    a.window_tokens = sizes.key_tokens;
    // A network whose branches share keys and values gives the same tensors twice.
    a.separate = full_key != key || full_value != value;
    a.rest_tokens = a.separate ? sizes.full_tokens : sizes.full_tokens - sizes.key_tokens;
    a.alpha = alpha;
    a.scale_log2 = kScale * kLog2E;
    return a;
}

} // namespace rap

#ifdef RAP_ELEMENT
extern "C" __global__ void __launch_bounds__(RAP_WARPS * 32, rap::blocks_per_multiprocessor(RAP_HEAD_DIM, RAP_WARPS))
    rap_hybrid_attention(const void* query, const void* key, const void* value, const void* full_key,
                         const void* full_value, int32_t frames, int32_t heads, int32_t query_tokens,
                         int32_t key_tokens, int32_t full_tokens, int32_t alpha_bits, void* output) {
    const rap::Arguments arguments = rap::arguments_of<RAP_HEAD_DIM, RAP_WARPS>(
        query, key, value, full_key, full_value, output, {frames, heads, query_tokens, key_tokens, full_tokens},
        __int_as_float(alpha_bits));
    rap::attend<rap::tile::RAP_ELEMENT, RAP_HEAD_DIM, RAP_WARPS>(arguments);
}
#endif
