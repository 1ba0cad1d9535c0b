// The kernel for plans: TensorRT gives it the input tensors, 32-bit words, and the output tensor, all contiguous.
//
// Compiled with RAP_ELEMENT (Half or Bfloat16), RAP_HEAD_DIM and RAP_WARPS. tile_ops.cuh is included first. Products are
// those of warps on every GPU, and the slots are a ring: what a block needs must not be asked for (48 KiB), as it is not
// known whether TensorRT does.
#pragma once

#include "hybrid_attention_kernel.cuh"
#include "warp_products.cuh"

namespace rap {

// No key tokens stand for no window branch, no full tokens for no full branch.
struct Sizes {
    int32_t frames, heads, query_tokens, key_tokens, full_tokens;
};

__device__ __forceinline__ Arguments arguments_of(const void* query, const void* key, const void* value,
                                                  const void* full_key, const void* full_value, const void* output,
                                                  const Sizes& sizes, int head_dim, int warps, float alpha) {
    const int rows = warps * WarpShape::kWarpRows;
    const int64_t row = int64_t{sizes.heads} * head_dim * 2;
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
    a.frames = sizes.frames;
    a.tiles_per_frame = (sizes.query_tokens + rows - 1) / rows;
    a.tiles_per_block = 1;
    a.query_tokens = sizes.query_tokens;
    a.window_tokens = sizes.key_tokens;
    a.full_tokens = sizes.full_tokens;
    a.slots = kLeastSlots;
    // A network whose branches share keys and values gives the same tensors twice.
    a.separate = full_key != key || full_value != value;
    a.alpha = alpha;
    a.scale_log2 = (head_dim == 64 ? 0.125f : 0.08838834764831845f) * kLog2E; // 1 / sqrt(head_dim)
    return a;
}

} // namespace rap

#ifdef RAP_ELEMENT
extern "C" __global__ void __launch_bounds__(RAP_WARPS * 32, rap::blocks_per_multiprocessor(RAP_WARPS))
    rap_hybrid_attention(const void* query, const void* key, const void* value, const void* full_key,
                         const void* full_value, int32_t frames, int32_t heads, int32_t query_tokens,
                         int32_t key_tokens, int32_t full_tokens, int32_t alpha_bits, void* output) {
    const rap::Arguments arguments =
        rap::arguments_of(query, key, value, full_key, full_value, output,
                          {frames, heads, query_tokens, key_tokens, full_tokens}, RAP_HEAD_DIM, RAP_WARPS,
                          __int_as_float(alpha_bits));
    rap::attend<rap::WarpProducts<rap::tile::RAP_ELEMENT, RAP_HEAD_DIM>, RAP_WARPS>(arguments);
}
#endif
