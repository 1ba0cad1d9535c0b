// The library's one entry that needs a GPU.
#include <cuda_runtime.h>

#include "warpgroup_ops.cuh"

#include "hybrid_attention_kernel.cuh"
#include "launch_plan.h"
#include "warp_products.cuh"
#include "warpgroup_products.cuh"

namespace {

constexpr int kUnaskedSharedBytes = 48 << 10; // more has to be asked for

template <class Products> cudaError_t launch(const rap::LaunchPlan& plan, cudaStream_t stream) {
    const dim3 grid(plan.grid[0], plan.grid[1], plan.grid[2]);
    const auto* kernel = reinterpret_cast<const void*>(plan.warps == 8 ? rap::hybrid_attention_kernel<Products, 8>
                                                                       : rap::hybrid_attention_kernel<Products, 4>);
    if (plan.shared_bytes > kUnaskedSharedBytes) {
        const cudaError_t asked =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes);
        if (asked != cudaSuccess) {
            return asked;
        }
    }
    auto arguments = plan.arguments;
    void* pointers[] = {&arguments};
    // Its own result: the thread's last error may be another library's.
    return cudaLaunchKernel(kernel, grid, dim3(32 * plan.warps), pointers, plan.shared_bytes, stream);
}

template <template <class, int> class Products>
cudaError_t launch(const rap::LaunchPlan& plan, cudaStream_t stream) {
    using rap::tile::Bfloat16, rap::tile::Half;
    if (plan.dtype == RAP_FLOAT16) {
        return plan.head_dim == 64 ? launch<Products<Half, 64>>(plan, stream)
                                   : launch<Products<Half, 128>>(plan, stream);
    }
    return plan.head_dim == 64 ? launch<Products<Bfloat16, 64>>(plan, stream)
                               : launch<Products<Bfloat16, 128>>(plan, stream);
}

bool describe_current(rap::Device* device) {
    int number = 0, major = 0, minor = 0;
    if (cudaGetDevice(&number) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, number) != cudaSuccess ||
        cudaDeviceGetAttribute(&device->multiprocessors, cudaDevAttrMultiProcessorCount, number) != cudaSuccess ||
        cudaDeviceGetAttribute(&device->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, number) !=
            cudaSuccess) {
        return false;
    }
    device->capability = 10 * major + minor;
    return true;
}

} // namespace

extern "C" rap_status rap_hybrid_attention(const rap_hybrid_attention_params* params, CUstream_st* stream) {
    const rap_status checked = rap_hybrid_attention_check(params);
    if (checked != RAP_OK) {
        return checked;
    }
    rap::Device device;
    if (!describe_current(&device)) {
        return RAP_CUDA_ERROR;
    }
    if (device.capability < (params->dtype == RAP_FLOAT16 ? 75 : 80)) {
        return RAP_UNSUPPORTED_DEVICE;
    }
    rap::LaunchPlan plan;
    const rap_status planned = rap::make_plan(params, device, &plan);
    if (planned != RAP_OK) {
        return planned;
    }
    const cudaError_t launched = plan.warpgroups ? launch<rap::WarpgroupProducts>(plan, stream)
                                                 : launch<rap::WarpProducts>(plan, stream);
    if (launched != cudaSuccess) {
        // The caller is told; whoever asks this thread next must not be told again.
        cudaGetLastError();
        return RAP_CUDA_ERROR;
    }
    return RAP_OK;
}
