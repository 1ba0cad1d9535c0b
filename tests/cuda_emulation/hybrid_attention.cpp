// The library's kernel and launch plan, with the emulator in the place of the GPU.
#include "tile_ops.h"

#include "hybrid_attention_kernel.cuh"

namespace {

template <class T, int HeadDim, int Warps>
const char* run(const rap::LaunchPlan& plan, uint64_t seed, emulation::Counts* counts) {
    emulation::Block block(Warps * 32, rap::Geometry<HeadDim, Warps>::kSharedBytes, seed);
    for (uint32_t z = 0; z < plan.grid[2]; ++z) {
        for (uint32_t y = 0; y < plan.grid[1]; ++y) {
            for (uint32_t x = 0; x < plan.grid[0]; ++x) {
                const char* error = block.run(
                    [&] { rap::hybrid_attention_kernel<T, HeadDim, Warps>(plan.arguments); }, {x, y, z}, counts);
                if (*error != '\0') {
                    return error;
                }
            }
        }
    }
    return "";
}

template <class T> const char* dispatch(const rap::LaunchPlan& plan, uint64_t seed, emulation::Counts* counts) {
    if (plan.head_dim == 64) {
        return plan.warps == 8 ? run<T, 64, 8>(plan, seed, counts) : run<T, 64, 4>(plan, seed, counts);
    }
    return plan.warps == 8 ? run<T, 128, 8>(plan, seed, counts) : run<T, 128, 4>(plan, seed, counts);
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
    return plan.dtype == RAP_FLOAT16 ? dispatch<rap::tile::Half>(plan, seed, counts)
                                     : dispatch<rap::tile::Bfloat16>(plan, seed, counts);
}
