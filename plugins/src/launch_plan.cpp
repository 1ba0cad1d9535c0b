#include "launch_plan.h"

#include <cmath>
#include <initializer_list>

namespace rap {
namespace {

constexpr int64_t kMaxGridX = INT64_C(0x7fffffff);
constexpr int64_t kMaxGridYZ = 65535;
constexpr int64_t kMaxTokens = INT64_C(1) << 30; // sums of token counts stay inside 32 bits
constexpr int64_t kElementBytes = 2;
constexpr int64_t kVectorBytes = 16;

int64_t blocks(int64_t tokens, int64_t rows) { return (tokens + rows - 1) / rows; }

// Eight warps read each key half as often as four, unless they leave rows of a frame's last block empty.
int32_t choose_warps(int64_t query_tokens) {
    constexpr int64_t small = 4 * kRowsPerWarp, large = 8 * kRowsPerWarp;
    return blocks(query_tokens, large) * large == blocks(query_tokens, small) * small ? 8 : 4;
}

rap_status check_tensor(const rap_tensor& tensor, int64_t width) {
    if (tensor.data == nullptr) {
        return RAP_NULL_POINTER;
    }
    if (tensor.token_stride < width || tensor.batch_stride < 0) {
        return RAP_BAD_STRIDE;
    }
    const bool aligned = reinterpret_cast<uintptr_t>(tensor.data) % kVectorBytes == 0 &&
                         tensor.token_stride * kElementBytes % kVectorBytes == 0 &&
                         tensor.batch_stride * kElementBytes % kVectorBytes == 0;
    return aligned ? RAP_OK : RAP_MISALIGNED;
}

Tensor in_bytes(const rap_tensor& tensor) {
    return {static_cast<const unsigned char*>(tensor.data), tensor.batch_stride * kElementBytes,
            tensor.token_stride * kElementBytes};
}

} // namespace

rap_status make_plan(const rap_hybrid_attention_params* params, LaunchPlan* plan) {
    if (params == nullptr || plan == nullptr) {
        return RAP_NULL_POINTER;
    }
    const rap_hybrid_attention_params& p = *params;
    for (const int32_t size : {p.batch, p.heads, p.frames, p.query_tokens, p.key_tokens}) {
        if (size < 1) {
            return RAP_BAD_SIZE;
        }
    }
    if (p.head_dim != 64 && p.head_dim != 128) {
        return RAP_BAD_HEAD_DIM;
    }
    if (p.dtype != RAP_FLOAT16 && p.dtype != RAP_BFLOAT16) {
        return RAP_BAD_DTYPE;
    }
    if (!(p.alpha >= 0.0f && p.alpha <= 1.0f)) {
        return RAP_BAD_ALPHA;
    }
    if (!(p.scale >= 0.0f && std::isfinite(p.scale))) {
        return RAP_BAD_SCALE;
    }
    const bool uses_window = p.alpha > 0.0f, uses_full = p.alpha < 1.0f;
    const bool shared = p.full_key.data == nullptr ||
                        (p.full_key.data == p.key.data && p.full_value.data == p.value.data);
    const int64_t all_keys = int64_t{p.frames} * p.key_tokens;
    const rap_tensor& full_key = shared ? p.key : p.full_key;
    const rap_tensor& full_value = shared ? p.value : p.full_value;
    if (shared && uses_full && p.full_tokens != all_keys) {
        return RAP_FULL_TOKENS;
    }
    const int32_t warps = choose_warps(p.query_tokens);
    const int64_t tiles = blocks(p.query_tokens, int64_t{warps} * kRowsPerWarp);
    const int64_t query_rows = int64_t{p.frames} * p.query_tokens;
    if (p.frames * tiles > kMaxGridX || p.heads > kMaxGridYZ || p.batch > kMaxGridYZ || query_rows > kMaxTokens ||
        all_keys > kMaxTokens || (uses_full && (p.full_tokens < 1 || p.full_tokens > kMaxTokens))) {
        return RAP_BAD_SIZE;
    }
    const int64_t width = int64_t{p.heads} * p.head_dim;
    const struct {
        const rap_tensor* tensor;
        bool used;
    } tensors[] = {{&p.query, true},           {&p.output, true},          {&p.key, uses_window || shared},
                   {&p.value, uses_window || shared}, {&full_key, uses_full}, {&full_value, uses_full}};
    for (const auto& item : tensors) {
        const rap_status status = item.used ? check_tensor(*item.tensor, width) : RAP_OK;
        if (status != RAP_OK) {
            return status;
        }
    }
    Arguments arguments{};
    arguments.query = in_bytes(p.query);
    arguments.key = in_bytes(p.key);
    arguments.value = in_bytes(p.value);
    arguments.full_key = in_bytes(full_key);
    arguments.full_value = in_bytes(full_value);
    arguments.output = in_bytes(p.output);
    arguments.tiles_per_frame = static_cast<int32_t>(tiles);
    arguments.query_tokens = p.query_tokens;
    arguments.window_tokens = uses_window ? p.key_tokens : 0;
    arguments.separate = !shared;
    arguments.rest_tokens = uses_full ? p.full_tokens - (shared ? arguments.window_tokens : 0) : 0;
    arguments.alpha = p.alpha;
    arguments.scale_log2 =
        (p.scale == 0.0f ? 1.0f / std::sqrt(static_cast<float>(p.head_dim)) : p.scale) * kLog2E;
    *plan = {arguments,
             p.head_dim,
             warps,
             p.dtype,
             {static_cast<uint32_t>(p.frames * tiles), static_cast<uint32_t>(p.heads),
              static_cast<uint32_t>(p.batch)}};
    return RAP_OK;
}

} // namespace rap

extern "C" {

rap_status rap_hybrid_attention_check(const rap_hybrid_attention_params* params) {
    rap::LaunchPlan plan;
    return rap::make_plan(params, &plan);
}

int32_t rap_hybrid_attention_version(void) { return RAP_HYBRID_ATTENTION_VERSION; }

const char* rap_status_message(rap_status status) {
    switch (status) {
    case RAP_OK:
        return "All is well.";
    case RAP_NULL_POINTER:
        return "A tensor that the attention reads or writes has no address; set its data.";
    case RAP_BAD_SIZE:
        return "A size is below 1 or too large for one launch; check batch, heads, frames and tokens.";
    case RAP_BAD_HEAD_DIM:
        return "head_dim must be 64 or 128; use the native attention for other widths.";
    case RAP_BAD_DTYPE:
        return "dtype must be RAP_FLOAT16 or RAP_BFLOAT16; cast the tensors.";
    case RAP_BAD_ALPHA:
        return "alpha must lie in 0..1; correct it.";
    case RAP_BAD_SCALE:
        return "scale must be positive and finite, or 0 for 1 / sqrt(head_dim); correct it.";
    case RAP_MISALIGNED:
        return "Addresses and strides must be multiples of 16 bytes; align the tensors.";
    case RAP_BAD_STRIDE:
        return "A token stride must be at least heads * head_dim and a batch stride at least 0; correct them.";
    case RAP_FULL_TOKENS:
        return "Shared branches need full_tokens = frames * key_tokens; correct it or pass full keys and values.";
    case RAP_UNSUPPORTED_DEVICE:
        return "The GPU is too old: fp16 needs compute capability 7.5, bf16 needs 8.0; use the native attention.";
    case RAP_CUDA_ERROR:
        return "CUDA refused the launch; cudaPeekAtLastError() says why.";
    }
    return "Unknown status; the library and its header differ in version.";
}

} // extern "C"
