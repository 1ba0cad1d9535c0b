// What warpgroups need of compute capability 9.0, one function per instruction; on other GPUs nothing calls them.
//
// A product runs beside the warps that issued it. Registers that it reads or adds to are fenced before, and not touched
// until it has been waited for; shared memory that it reads is published by the threads that copied to it.
#pragma once

#include "tile_ops.cuh"

namespace rap::tile {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define RAP_ON_SM90(...) asm volatile(__VA_ARGS__)
#else
#define RAP_ON_SM90(...) __trap()
#endif

// What this thread's copies have brought is seen by products.
__device__ __forceinline__ void publish_copies() { RAP_ON_SM90("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void fence_products() { RAP_ON_SM90("wgmma.fence.sync.aligned;" ::: "memory"); }

// Close the group of products that were issued since the last call.
__device__ __forceinline__ void commit_products() { RAP_ON_SM90("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Wait until at most `Newest` groups are still under way.
template <int Newest> __device__ __forceinline__ void wait_products() {
    RAP_ON_SM90("wgmma.wait_group.sync.aligned %0;" ::"n"(Newest) : "memory");
}

#define RAP_OCTET(i)                                                                                                   \
    "+f"(acc[i][0]), "+f"(acc[i][1]), "+f"(acc[i][2]), "+f"(acc[i][3])
#define RAP_OCTETS(i)                                                                                                  \
    RAP_OCTET(i), RAP_OCTET(i + 1), RAP_OCTET(i + 2), RAP_OCTET(i + 3)
#define RAP_NUMBERS_16                                                                                                 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define RAP_NUMBERS_32                                                                                                 \
    RAP_NUMBERS_16                                                                                                     \
    ", "                                                                                                               \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define RAP_NUMBERS_64                                                                                                 \
    RAP_NUMBERS_32                                                                                                     \
    ", "                                                                                                               \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                                 \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// The numbers are those of the operands: acc, a, the descriptor, `add` and `Transposed`.
#define RAP_PRODUCT(columns, element, numbers, a_numbers, place, add_number, transposed, ...)                          \
    RAP_ON_SM90("{ .reg .pred p; setp.ne.b32 p, " add_number ", 0; wgmma.mma_async.sync.aligned.m64n" columns "k16.f32."\
                element "." element " {" numbers "}, {" a_numbers "}, " place ", p, 1, 1, " transposed "; }"           \
                : __VA_ARGS__                                                                                          \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descriptor), "r"(static_cast<int>(add)),             \
                  "n"(Transposed ? 1 : 0))
#define RAP_PRODUCT_32(element)                                                                                        \
    RAP_PRODUCT("32", element, RAP_NUMBERS_16, "%16, %17, %18, %19", "%20", "%21", "%22", RAP_OCTETS(0))
#define RAP_PRODUCT_64(element)                                                                                        \
    RAP_PRODUCT("64", element, RAP_NUMBERS_32, "%32, %33, %34, %35", "%36", "%37", "%38", RAP_OCTETS(0),               \
                RAP_OCTETS(4))
#define RAP_PRODUCT_128(element)                                                                                       \
    RAP_PRODUCT("128", element, RAP_NUMBERS_64, "%64, %65, %66, %67", "%68", "%69", "%70", RAP_OCTETS(0),              \
                RAP_OCTETS(4), RAP_OCTETS(8), RAP_OCTETS(12))

template <class T> constexpr bool kIsHalf = false;
template <> constexpr bool kIsHalf<Half> = true;

// acc[64, 8 Octets] = a[64, 16] b[16, 8 Octets], added to acc if `add`. A warp holds 16 rows of acc and a as those of
// mma.m16n8k16; b is what the descriptor (PTX ISA, wgmma) says, with its columns contiguous if `Transposed`.
template <class T, bool Transposed, int Octets>
__device__ __forceinline__ void multiply_shared(float (&acc)[Octets][4], const uint32_t (&a)[4], uint64_t descriptor,
                                                bool add) {
    static_assert(Octets == 4 || Octets == 8 || Octets == 16, "the kernel has these widths");
    if constexpr (Octets == 4 && kIsHalf<T>) {
        RAP_PRODUCT_32("f16");
    } else if constexpr (Octets == 4) {
        RAP_PRODUCT_32("bf16");
    } else if constexpr (Octets == 8 && kIsHalf<T>) {
        RAP_PRODUCT_64("f16");
    } else if constexpr (Octets == 8) {
        RAP_PRODUCT_64("bf16");
    } else if constexpr (kIsHalf<T>) {
        RAP_PRODUCT_128("f16");
    } else {
        RAP_PRODUCT_128("bf16");
    }
}

#undef RAP_PRODUCT_128
#undef RAP_PRODUCT_64
#undef RAP_PRODUCT_32
#undef RAP_PRODUCT
#undef RAP_NUMBERS_64
#undef RAP_NUMBERS_32
#undef RAP_NUMBERS_16
#undef RAP_OCTETS
#undef RAP_OCTET
#undef RAP_ON_SM90

} // namespace rap::tile
