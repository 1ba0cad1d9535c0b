// The functions of plugins/src/tile_ops.cuh on the emulator.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator.h"

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (emulation::Block::current()->thread())
#define blockIdx (emulation::Block::current()->block())

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

namespace rap::tile {

using emulation::Block;
using emulation::Meeting;
using emulation::Offer;

struct Half {
    static float widen(uint16_t bits) {
        _Float16 value;
        std::memcpy(&value, &bits, 2);
        return static_cast<float>(value);
    }
    static uint16_t round(float value) {
        const auto half = static_cast<_Float16>(value);
        uint16_t bits;
        std::memcpy(&bits, &half, 2);
        return bits;
    }
};

struct Bfloat16 {
    static float widen(uint16_t bits) {
        const uint32_t word = static_cast<uint32_t>(bits) << 16;
        float value;
        std::memcpy(&value, &word, 4);
        return value;
    }
    static uint16_t round(float value) {
        uint32_t word;
        std::memcpy(&word, &value, 4);
        if (value != value) {
            return 0x7fff;
        }
        return static_cast<uint16_t>((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
    }
};

template <class T> uint32_t pack(float low, float high) {
    return T::round(low) | static_cast<uint32_t>(T::round(high)) << 16;
}

template <class T> void multiply(float (&acc)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Offer offer{};
    offer.acc = acc;
    offer.a = a;
    offer.b[0] = b0;
    offer.b[1] = b1;
    offer.to_float = &T::widen;
    Block::current()->meet(Meeting::multiply, offer);
}

inline void load(Meeting how, uint32_t (&out)[4], uint32_t row) {
    Offer offer{};
    offer.out = out;
    offer.row = row;
    Block::current()->meet(how, offer);
}

inline void load_matrices(uint32_t (&out)[4], uint32_t row) { load(Meeting::load, out, row); }

inline void load_matrices_transposed(uint32_t (&out)[4], uint32_t row) { load(Meeting::load_transposed, out, row); }

inline void copy_async(uint32_t shared, const void* global, bool valid) {
    Block::current()->copy({shared, global, valid});
}

inline void commit_copies() { Block::current()->commit(); }

template <int Newest> void wait_copies() { Block::current()->wait(Newest); }

inline void block_barrier() { Block::current()->meet(Meeting::block_barrier, {}); }

inline uint32_t exchange(Meeting how, uint32_t word, int mask) {
    uint32_t received = 0;
    Offer offer{};
    offer.out = &received;
    offer.word = word;
    offer.mask = mask;
    Block::current()->meet(how, offer);
    return received;
}

template <class Word> Word shuffle_xor(Word value, int mask) {
    static_assert(sizeof(Word) == 4, "registers have 32 bits");
    uint32_t word;
    std::memcpy(&word, &value, 4);
    word = exchange(Meeting::shuffle, word, mask);
    std::memcpy(&value, &word, 4);
    return value;
}

inline bool any(bool value) { return exchange(Meeting::vote, value, 0) != 0; }

inline void publish_copies() { Block::current()->publish(); }

inline void fence_products() { Block::current()->meet(Meeting::group_fence, {}); }

inline void commit_products() { Block::current()->meet(Meeting::group_commit, {}); }

template <int Newest> void wait_products() {
    Offer offer{};
    offer.newest = Newest;
    Block::current()->meet(Meeting::group_wait, offer);
}

template <class T, bool Transposed, int Octets>
void multiply_shared(float (&acc)[Octets][4], const uint32_t (&a)[4], uint64_t descriptor, bool add) {
    Offer offer{};
    offer.acc = &acc[0][0];
    offer.a = a;
    offer.to_float = &T::widen;
    offer.descriptor = descriptor;
    offer.columns = 8 * Octets;
    offer.transposed = Transposed;
    offer.add = add;
    Block::current()->meet(Meeting::group_multiply, offer);
}

inline float reciprocal(float x) { return 1.0f / x; }

inline int anew(int value) { return value; }

inline float exp2(float x) { return std::exp2(x); }

inline uint32_t shared_storage() { return 0; }

} // namespace rap::tile
