// The library's kernel and launch plan, and the kernel for plans, with the emulator in the place of the GPU.
#include "tile_ops.h"

#include "hybrid_attention_entry.cuh"
#include "launch_plan.h"
#include "warp_products.cuh"
#include "warpgroup_products.cuh"

namespace {

struct Launch {
    rap::Arguments arguments;
    int warps;
    const uint32_t* grid;
    size_t shared_bytes;
    uint64_t seed;
    emulation::Counts* counts;
};

struct LaunchFacts {
    int32_t warpgroups, warps, shared_bytes, slots, tiles_per_block;
    uint32_t grid[3];
};

template <class Products, int Warps> const char* run(const Launch& launch) {
    emulation::Block block(Warps * 32, launch.shared_bytes, launch.seed);
    for (uint32_t z = 0; z < launch.grid[2]; ++z) {
        for (uint32_t y = 0; y < launch.grid[1]; ++y) {
            for (uint32_t x = 0; x < launch.grid[0]; ++x) {
                const char* error = block.run(
                    [&] { rap::hybrid_attention_kernel<Products, Warps>(launch.arguments); }, {x, y, z},
                    launch.counts);
                if (*error != '\0') {
                    return error;
                }
            }
        }
    }
    return "";
}

template <class Products> const char* run(const Launch& launch) {
    return launch.warps == 8 ? run<Products, 8>(launch) : run<Products, 4>(launch);
}

template <template <class, int> class Products> const char* run(const Launch& launch, int dtype, int head_dim) {
    using rap::tile::Bfloat16, rap::tile::Half;
#ifdef RAP_ONE_KIND // compiles in a quarter of the time
    return dtype == RAP_FLOAT16 && head_dim == 128 ? run<Products<Half, 128>>(launch) : "not compiled";
#endif
    if (dtype == RAP_FLOAT16) {
        return head_dim == 64 ? run<Products<Half, 64>>(launch) : run<Products<Half, 128>>(launch);
    }
    return head_dim == 64 ? run<Products<Bfloat16, 64>>(launch) : run<Products<Bfloat16, 128>>(launch);
}

} // namespace

// On a GPU of this compute capability, with so many multiprocessors and bytes of shared memory for a block. "" after a
// sound run, else what was wrong with the parameters or with the kernel's use of the machine.
extern "C" const char* emulate(const rap_hybrid_attention_params* params, const rap::Device* device, uint64_t seed,
                               emulation::Counts* counts) {
    rap::LaunchPlan plan;
    const rap_status status = rap::make_plan(params, *device, &plan);
    if (status != RAP_OK) {
        return rap_status_message(status);
    }
    *counts = {};
    const Launch launch{plan.arguments, plan.warps, plan.grid, static_cast<size_t>(plan.shared_bytes), seed, counts};
    return plan.warpgroups ? run<rap::WarpgroupProducts>(launch, plan.dtype, plan.head_dim)
                           : run<rap::WarpProducts>(launch, plan.dtype, plan.head_dim);
}

// What the library would launch; the status of its check otherwise.
extern "C" int plan_launch(const rap_hybrid_attention_params* params, const rap::Device* device, LaunchFacts* facts) {
    rap::LaunchPlan plan;
    const rap_status status = rap::make_plan(params, *device, &plan);
    if (status == RAP_OK) {
        *facts = {plan.warpgroups, plan.warps, plan.shared_bytes, plan.arguments.slots, plan.arguments.tiles_per_block,
                  {plan.grid[0], plan.grid[1], plan.grid[2]}};
    }
    return status;
}

// The same for the kernel as a plan launches it: query, key, value, full_key, full_value, output; its words; its launch.
extern "C" const char* emulate_in_plan(void* const* tensors, const int32_t* words, int dtype, int head_dim, int warps,
                                       const uint32_t* grid, uint64_t shared_bytes, emulation::Counts* counts) {
    *counts = {};
    float alpha;
    std::memcpy(&alpha, &words[5], sizeof alpha);
    const rap::Sizes sizes{words[0], words[1], words[2], words[3], words[4]};
    const rap::Arguments arguments = rap::arguments_of(tensors[0], tensors[1], tensors[2], tensors[3], tensors[4],
                                                       tensors[5], sizes, head_dim, warps, alpha);
    return run<rap::WarpProducts>({arguments, warps, grid, shared_bytes, 0, counts}, dtype, head_dim);
}
