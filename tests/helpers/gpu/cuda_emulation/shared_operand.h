// Where wgmma finds the elements of an operand B[k][n] of 16-bit elements that a descriptor with the 128-byte swizzle
// describes (PTX ISA, asynchronous warpgroup matrices).
#pragma once

#include <cstdint>

namespace emulation {

// Tiles of 8 rows of 128 bytes start at multiples of 1024; the 16-byte vectors of row r are exchanged by r. If k is
// contiguous, a row is a column n and the next 8 of them are `stride` further. If n is (transposed), a row is a k, the
// next 8 are `stride` and the next 64 columns `leading` further.
struct SharedOperand {
    uint64_t descriptor;
    bool transposed;
    uint32_t start, leading, stride;

    SharedOperand(uint64_t bits, bool n_contiguous)
        : descriptor(bits), transposed(n_contiguous), start(field(0)), leading(field(16)), stride(field(32)) {}

    bool is_sound() const {
        const bool swizzled = descriptor >> 62 == 1 && (descriptor >> 49 & 7) == 0;
        const bool aligned = transposed ? start % 1024 == 0 && leading % 1024 == 0 : start % 1024 < 128;
        return swizzled && aligned && stride % 1024 == 0;
    }

    uint32_t address(int k, int n) const {
        const uint32_t plain = transposed ? start + n / 64 * leading + k / 8 * stride + k % 8 * 128 + n % 64 * 2
                                          : start + n / 8 * stride + n % 8 * 128 + k * 2;
        return plain ^ (plain >> 7 & 7) << 4;
    }

  private:
    uint32_t field(int bit) const { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) * 16; }
};

} // namespace emulation
