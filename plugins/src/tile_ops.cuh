// What the kernel needs of the hardware, one function per instruction. The tests put emulations in their place.
#pragma once

#include <cstdint>

namespace rap::tile {

struct Half {};
struct Bfloat16 {};

// Two floats, rounded to nearest even, in one register; `low` is the one at the lower address.
template <class T> __device__ __forceinline__ uint32_t pack(float low, float high);

template <> __device__ __forceinline__ uint32_t pack<Half>(float low, float high) {
    uint32_t pair;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("{ .reg .b16 a, b; cvt.rn.f16.f32 a, %1; cvt.rn.f16.f32 b, %2; mov.b32 %0, {a, b}; }"
        : "=r"(pair)
        : "f"(low), "f"(high));
#endif
    return pair;
}

template <> __device__ __forceinline__ uint32_t pack<Bfloat16>(float low, float high) {
    uint32_t pair = 0;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    __trap(); // the library refuses the call before
#endif
    return pair;
}

// acc[16, 8] += a[16, 16] b[16, 8] in the fragment layout of mma.m16n8k16 (PTX ISA, warp-level matrix fragments).
template <class T>
__device__ __forceinline__ void multiply(float (&acc)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void multiply<Half>(float (&acc)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    // Turing has the two halves of the contraction only one by one; the fragments are laid out alike.
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

template <>
__device__ __forceinline__ void multiply<Bfloat16>(float (&acc)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    __trap(); // the library refuses the call before
#endif
}

// Places in shared memory are its own 32-bit addresses.

// Four 8x8 matrices of 16-bit elements from shared memory; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}

// Copy 16 bytes from global to shared memory, or write zeros if not `valid`; `global` is then not read.
__device__ __forceinline__ void copy_async(uint32_t shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
#else
    asm volatile("{ .reg .pred p; .reg .b32 x, y, z, w; setp.ne.b32 p, %2, 0;"
                 " mov.b32 x, 0; mov.b32 y, 0; mov.b32 z, 0; mov.b32 w, 0;"
                 " @p ld.global.v4.u32 {x, y, z, w}, [%1]; st.shared.v4.u32 [%0], {x, y, z, w}; }" ::"r"(shared),
                 "l"(global), "r"(valid ? 1 : 0)
                 : "memory");
#endif
}

// Close the group of copies that this thread has issued since the last call.
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until at most `Newest` of this thread's groups are still under way.
template <int Newest> __device__ __forceinline__ void wait_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(Newest) : "memory");
#endif
}

__device__ __forceinline__ void block_barrier() { __syncthreads(); }

template <class Word> __device__ __forceinline__ Word shuffle_xor(Word value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}

// Whether it holds for any thread of the warp.
__device__ __forceinline__ bool any(bool value) { return __any_sync(0xffffffffu, value) != 0; }

__device__ __forceinline__ float exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The same value, of which the compiler does not know that it has met it before.
__device__ __forceinline__ int anew(int value) {
    asm volatile("" : "+r"(value));
    return value;
}

// The block's shared memory, as much as the launch gives. Its start is where wgmma's swizzle begins anew.
__device__ __forceinline__ uint32_t shared_storage() {
    extern __shared__ __align__(1024) unsigned char storage[];
    return static_cast<uint32_t>(__cvta_generic_to_shared(storage));
}

} // namespace rap::tile
