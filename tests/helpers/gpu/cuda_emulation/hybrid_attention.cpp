// The library's kernel and launch plan, and the kernel for plans, with the emulator in the place of the GPU.
#include "tile_ops.h"

#include "hybrid_attention_entry.cuh"
#include "launch_plan.h"

namespace {

template <class T, int HeadDim, int Warps>
const char* run(const rap::Arguments& arguments, const uint32_t* grid, uint64_t seed, emulation::Counts* counts) {
    emulation::Block block(Warps * 32, rap::Geometry<HeadDim, Warps>::kSharedBytes, seed);
    for (uint32_t z = 0; z < grid[2]; ++z) {
        for (uint32_t y = 0; y < grid[1]; ++y) {
            for (uint32_t x = 0; x < grid[0]; ++x) {
                const char* error = block.run(
                    [&] { rap::hybrid_attention_kernel<T, HeadDim, Warps>(arguments); }, {x, y, z}, counts);
                if (*error != '\0') {
                    return error;
                }
            }
        }
    }
    return "";
}

template <class T>
const char* dispatch(const rap::Arguments& arguments, int head_dim, int warps, const uint32_t* grid, uint64_t seed,
                     emulation::Counts* counts) {
    if (head_dim == 64) {
        return warps == 8 ? run<T, 64, 8>(arguments, grid, seed, counts) : run<T, 64, 4>(arguments, grid, seed, counts);
    }
    return warps == 8 ? run<T, 128, 8>(arguments, grid, seed, counts) : run<T, 128, 4>(arguments, grid, seed, counts);
}

template <int HeadDim> rap::Arguments arguments_in_plan(void* const* tensors, const int32_t* words, int warps) {
    float alpha;
    std::memcpy(&alpha, &words[5], sizeof alpha);
    const rap::Sizes sizes{words[0], words[1], words[2], words[3], words[4]};
    const auto arguments = warps == 8 ? rap::arguments_of<HeadDim, 8> : rap::arguments_of<HeadDim, 4>;
    return arguments(tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], tensors[5], sizes, alpha);
}

} // namespace

// "" after a sound run, else what was wrong with the parameters or with the kernel's use of the machine.
extern "C" const char* emulate(const rap_hybrid_attention_params* params, uint64_t seed, emulation::Counts* counts) {
    rap::LaunchPlan plan;
    const rap_status status = rap::make_plan(params, &plan);
    if (status != RAP_OK) {
        return rap_status_message(status);
    }
    *counts = {};
    const auto emulate_as = plan.dtype == RAP_FLOAT16 ? dispatch<rap::tile::Half> : dispatch<rap::tile::Bfloat16>;
    return emulate_as(plan.arguments, plan.head_dim, plan.warps, plan.grid, seed, counts);
}

// The same for the kernel as a plan launches it: query, key, value, full_key, full_value, output; its words; its grid.
extern "C" const char* emulate_in_plan(void* const* tensors, const int32_t* words, int dtype, int head_dim, int warps,
                                       const uint32_t* grid, emulation::Counts* counts) {
    *counts = {};
    const rap::Arguments arguments = head_dim == 64 ? arguments_in_plan<64>(tensors, words, warps)
                                                    : arguments_in_plan<128>(tensors, words, warps);
    const auto emulate_as = dtype == RAP_FLOAT16 ? dispatch<rap::tile::Half> : dispatch<rap::tile::Bfloat16>;
    return emulate_as(arguments, head_dim, warps, grid, 0, counts);
}
