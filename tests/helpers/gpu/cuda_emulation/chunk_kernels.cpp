// Runs runtime/loop/gpu/kernels.cu on the CPU: blocks one after the other, the threads of a block as threads.
//
// A kernel that meets at a barrier gets many threads; the others, which stride over the grid, get one per block.
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __shared__ static

namespace {

struct Index {
    unsigned x, y, z;
};

constexpr unsigned kThreads = 8;
thread_local Index threadIdx{0, 0, 0};
Index blockIdx{0, 0, 0}, blockDim{1, 1, 1}, gridDim{1, 1, 1};
std::barrier<>* meeting = nullptr;

void __syncthreads() { meeting->arrive_and_wait(); }

unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }

float __uint_as_float(unsigned word) {
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}

using std::isfinite;

} // namespace

#include "../../../../runtime/loop/gpu/kernels.cu"

namespace {

template <typename... Types, size_t... I>
void call(void (*kernel)(Types...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Types*>(arguments[I])...);
}

template <typename... Types>
void run(void (*kernel)(Types...), unsigned blocks, unsigned threads, void** arguments) {
    const auto indices = std::index_sequence_for<Types...>{};
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        std::barrier<> barrier(threads);
        meeting = &barrier;
        std::vector<std::thread> team;
        for (unsigned thread = 1; thread < threads; ++thread) {
            team.emplace_back([=] {
                threadIdx.x = thread;
                call(kernel, arguments, indices);
            });
        }
        call(kernel, arguments, indices);
        for (std::thread& member : team) {
            member.join();
        }
    }
}

} // namespace

// Whether there is a kernel of this name; it is run.
extern "C" int launch(const char* name, unsigned blocks, void** arguments) {
#define KERNEL(kernel, threads)                    \
    if (std::strcmp(name, #kernel) == 0) {         \
        run(kernel, blocks, threads, arguments);   \
        return 1;                                  \
    }
    KERNEL(clear_flags, 1)
    KERNEL(set_value, 1)
    KERNEL(check_finite, 1)
    KERNEL(gather_windows, 1)
    KERNEL(normal_noise, 1)
    KERNEL(carry_noisy, 1)
    KERNEL(carry_clean, 1)
    KERNEL(guide, 1)
    KERNEL(euler_step, 1)
    KERNEL(renoise_step, 1)
    KERNEL(to_pixels, 1)
    KERNEL(color_statistics, kThreads)
    KERNEL(color_match, 1)
    KERNEL(to_frames, 1)
#undef KERNEL
    return 0;
}
