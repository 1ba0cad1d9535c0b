#include "launch_plan.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

namespace rap {
namespace {

constexpr int64_t kMaxGridYZ = 65535;
constexpr int64_t kMaxTokens = INT64_C(1) << 30; // sums of token counts stay inside 32 bits
constexpr int64_t kElementBytes = 2;
constexpr int32_t kWarpgroupCapability = 90; // wgmma is an instruction of it alone

// The check needs a plan for some GPU, and none to be there.
constexpr Device kAnyDevice{80, 108, 163 << 10};

int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// Blocks of eight warps read the keys half as often, unless they leave more rows empty or multiprocessors idle. On a
// Turing they would not fit its registers.
template <class Shape> int32_t choose_warps(const rap_hybrid_attention_params& p, const Device& device) {
    constexpr int64_t small = 4 * Shape::kWarpRows, large = 8 * Shape::kWarpRows;
    const int64_t tiles = parts(p.query_tokens, large);
    const bool full = tiles * large == parts(p.query_tokens, small) * small;
    const bool busy = int64_t{p.batch} * p.heads * p.frames * tiles >= device.multiprocessors;
    return full && busy && device.capability >= 80 ? 8 : 4;
}

// Row tiles of a block whose keys stay in shared memory. Every block copies them, which takes about as long as a quarter
// of a row tile, and the longest block sets the time of a round.
int64_t choose_range(int64_t row_tiles, int64_t heads, int64_t blocks_at_once) {
    int64_t best = 1, least = INT64_MAX;
    for (int64_t rounds = 1; rounds <= 8; ++rounds) {
        const int64_t range = parts(row_tiles, std::max<int64_t>(1, rounds * blocks_at_once / heads));
        const int64_t cost = parts(parts(row_tiles, range) * heads, blocks_at_once) * (4 * range + 1);
        if (cost < least) {
            best = range, least = cost;
        }
    }
    return best;
}

// Tiles of keys that a frame's queries meet at most.
template <class Shape> int64_t different_tiles(const Arguments& a) {
    constexpr int64_t keys = Shape::kKeysPerTile;
    const bool within = !a.separate && a.full_tokens > 0 && a.window_tokens > 0;
    return parts(a.full_tokens, keys) + (within ? 0 : parts(a.window_tokens, keys));
}

template <class Shape> void lay_out(const rap_hybrid_attention_params& p, const Device& device, LaunchPlan* plan) {
    Arguments& a = plan->arguments;
    plan->warps = choose_warps<Shape>(p, device);
    a.tiles_per_frame = static_cast<int32_t>(parts(p.query_tokens, plan->warps * Shape::kWarpRows));
    a.tiles_per_block = 1;
    a.slots = kLeastSlots;
    const int64_t row_tiles = int64_t{p.frames} * a.tiles_per_frame;
    const int32_t slot_bytes = Shape::kSlotBytesPerChannel * p.head_dim;
    if (Shape::kKeepsKeys) {
        const int64_t blocks_together = 8 / plan->warps, tiles = different_tiles<Shape>(a);
        // A block takes as much of the shared memory as of the registers.
        if (tiles * slot_bytes * blocks_together <= device.shared_bytes) {
            a.slots = static_cast<int32_t>(tiles);
            a.tiles_per_block = static_cast<int32_t>(
                choose_range(row_tiles, int64_t{p.batch} * p.heads, device.multiprocessors * blocks_together));
        }
    }
    plan->shared_bytes = a.slots * slot_bytes;
    plan->grid[0] = static_cast<uint32_t>(parts(row_tiles, a.tiles_per_block));
    plan->grid[1] = static_cast<uint32_t>(p.heads);
    plan->grid[2] = static_cast<uint32_t>(p.batch);
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

rap_status make_plan(const rap_hybrid_attention_params* params, const Device& device, LaunchPlan* plan) {
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
    const int64_t query_rows = int64_t{p.frames} * p.query_tokens;
    if (p.heads > kMaxGridYZ || p.batch > kMaxGridYZ || query_rows > kMaxTokens || all_keys > kMaxTokens ||
        (uses_full && (p.full_tokens < 1 || p.full_tokens > kMaxTokens))) {
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
    arguments.frames = p.frames;
    arguments.query_tokens = p.query_tokens;
    arguments.window_tokens = uses_window ? p.key_tokens : 0;
    arguments.full_tokens = uses_full ? p.full_tokens : 0;
    arguments.separate = !shared;
    arguments.alpha = p.alpha;
    arguments.scale_log2 =
        (p.scale == 0.0f ? 1.0f / std::sqrt(static_cast<float>(p.head_dim)) : p.scale) * kLog2E;
    *plan = {};
    plan->arguments = arguments;
    plan->head_dim = p.head_dim;
    plan->dtype = p.dtype;
    plan->warpgroups = device.capability == kWarpgroupCapability;
    if (plan->warpgroups) {
        lay_out<WarpgroupShape>(p, device, plan);
    } else {
        lay_out<WarpShape>(p, device, plan);
    }
    return RAP_OK;
}

} // namespace rap

extern "C" {

rap_status rap_hybrid_attention_check(const rap_hybrid_attention_params* params) {
    rap::LaunchPlan plan;
    return rap::make_plan(params, rap::kAnyDevice, &plan);
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
