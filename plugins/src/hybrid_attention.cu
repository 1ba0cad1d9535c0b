// The library's one entry that needs a GPU.
#include <cuda_runtime.h>

#include "tile_ops.cuh"

#include "hybrid_attention_kernel.cuh"
#include "launch_plan.h"

namespace {

template <class T, int HeadDim> cudaError_t launch(const rap::LaunchPlan& plan, cudaStream_t stream) {
    const dim3 grid(plan.grid[0], plan.grid[1], plan.grid[2]);
    const auto kernel = plan.warps == 8 ? rap::hybrid_attention_kernel<T, HeadDim, 8>
                                        : rap::hybrid_attention_kernel<T, HeadDim, 4>;
    auto arguments = plan.arguments;
    void* pointers[] = {&arguments};
    // Its own result: the thread's last error may be another library's.
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, dim3(32 * plan.warps), pointers, 0, stream);
}

} // namespace

extern "C" rap_status rap_hybrid_attention(const rap_hybrid_attention_params* params, CUstream_st* stream) {
    rap::LaunchPlan plan;
    const rap_status status = rap::make_plan(params, &plan);
    if (status != RAP_OK) {
        return status;
    }
    int device = 0, major = 0, minor = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
        return RAP_CUDA_ERROR;
    }
    const bool half = plan.dtype == RAP_FLOAT16;
    if (10 * major + minor < (half ? 75 : 80)) {
        return RAP_UNSUPPORTED_DEVICE;
    }
    const bool narrow = plan.head_dim == 64;
    const cudaError_t launched =
        half ? (narrow ? launch<rap::tile::Half, 64>(plan, stream) : launch<rap::tile::Half, 128>(plan, stream))
             : (narrow ? launch<rap::tile::Bfloat16, 64>(plan, stream) : launch<rap::tile::Bfloat16, 128>(plan, stream));
    if (launched != cudaSuccess) {
        // The caller is told; whoever asks this thread next must not be told again.
        cudaGetLastError();
        return RAP_CUDA_ERROR;
    }
    return RAP_OK;
}
