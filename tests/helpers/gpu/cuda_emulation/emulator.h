// Runs a CUDA kernel's own source on the CPU: one fiber per thread, warp-wide instructions as meeting points.
//
// Fragment layouts are those of the PTX ISA (warp-level matrix instructions), which CUTLASS's traits agree with. The
// scheduler is hostile: warps run in a random order and change places at random instructions, an asynchronous copy
// arrives either at once or at the last moment that its wait allows, and shared memory starts as NaN. So a missing
// barrier, wait or mask shows as a wrong number. Fibers switch with setjmp: fast, and it works wherever glibc does.
#pragma once

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <ucontext.h>
#include <vector>

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 64 << 10;

struct Index {
    uint32_t x, y, z;
};

enum class Meeting { none, multiply, load, load_transposed, shuffle, warp_barrier, block_barrier, done };

struct Copy {
    void* shared;
    const void* global;
    bool valid;
};

// What a thread brings to a meeting; which fields count depends on the meeting.
struct Offer {
    float* acc;
    const uint32_t* a;
    uint32_t b[2];
    float (*to_float)(uint16_t);
    uint32_t* out;
    const void* row;
    float value;
    int mask;
};

struct Lane {
    ucontext_t start;
    jmp_buf resume;
    bool started;
    Meeting at;
    Offer offer;
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open;
};

struct Counts {
    uint64_t multiplies; // m16n8k16, all warps
    uint64_t loads;      // ldmatrix.x4
    uint64_t conflicts;  // octets of rows that share banks
};

class Block {
  public:
    Block(int threads, size_t shared_bytes, uint64_t seed)
        : lanes_(threads), stacks_(threads * kStackBytes), shared_(shared_bytes + 128), random_(seed) {}

    // Returns "" or what the kernel did that no GPU would allow.
    const char* run(const std::function<void()>& body, Index block, Counts* counts) {
        body_ = &body;
        block_ = block;
        counts_ = counts;
        error_ = "";
        std::memset(shared_.data(), 0xff, shared_.size());
        for (Lane& lane : lanes_) {
            lane.started = false;
            lane.at = Meeting::none;
            lane.groups.clear();
            lane.open.clear();
        }
        current() = this;
        const int warps = static_cast<int>(lanes_.size()) / kWarp;
        int warp = 0;
        while (*error_ == '\0') {
            if (all(0, static_cast<int>(lanes_.size()), Meeting::done)) {
                break;
            }
            if (all(0, static_cast<int>(lanes_.size()), Meeting::block_barrier)) {
                release(0, static_cast<int>(lanes_.size()));
            }
            if (chance(8) || !can_run(warp)) {
                warp = static_cast<int>(random_() % warps);
                for (int tries = 0; tries < warps && !can_run(warp); ++tries) {
                    warp = (warp + 1) % warps;
                }
                if (!can_run(warp)) {
                    fail("a thread left while others wait at a block barrier");
                    break;
                }
            }
            step(warp);
        }
        for (const Lane& lane : lanes_) {
            for (const auto& group : lane.groups) {
                if (!group.empty() && *error_ == '\0') {
                    error_ = "a copy was never waited for";
                }
            }
        }
        return error_;
    }

    void meet(Meeting at, const Offer& offer) {
        Lane& lane = lanes_[running_];
        lane.offer = offer;
        pause(lane, at);
    }

    void copy(const Copy& copy) {
        check_shared(copy.shared);
        if (copy.valid && reinterpret_cast<uintptr_t>(copy.global) % 16 != 0) {
            fail("a copy from an address that is no multiple of 16");
        }
        if (chance(2)) {
            arrive(copy);
        } else {
            std::memset(copy.shared, 0xff, 16);
            lanes_[running_].open.push_back(copy);
        }
    }

    void commit() {
        Lane& lane = lanes_[running_];
        lane.groups.push_back(lane.open);
        lane.open.clear();
    }

    void wait(size_t newest) {
        auto& groups = lanes_[running_].groups;
        for (size_t i = 0; i + newest < groups.size(); ++i) {
            for (const Copy& copy : groups[i]) {
                arrive(copy);
            }
            groups[i].clear();
        }
    }

    unsigned char* shared() {
        const auto address = reinterpret_cast<uintptr_t>(shared_.data());
        return shared_.data() + (128 - address % 128) % 128;
    }

    Index thread() const { return {static_cast<uint32_t>(running_), 0, 0}; }
    Index block() const { return block_; }

    static Block*& current() {
        static Block* block = nullptr;
        return block;
    }

  private:
    static void enter() {
        Block& block = *current();
        (*block.body_)();
        Lane& lane = block.lanes_[block.running_];
        lane.at = Meeting::done;
        _longjmp(block.scheduler_, 1);
    }

    __attribute__((noinline)) void pause(Lane& lane, Meeting at) {
        lane.at = at;
        if (_setjmp(lane.resume) == 0) {
            _longjmp(scheduler_, 1);
        }
    }

    __attribute__((noinline)) void run_lane(int number) {
        Lane& lane = lanes_[number];
        running_ = number;
        lane.at = Meeting::none;
        if (_setjmp(scheduler_) != 0) {
            return;
        }
        if (lane.started) {
            _longjmp(lane.resume, 1);
        }
        lane.started = true;
        getcontext(&lane.start);
        lane.start.uc_stack.ss_sp = stacks_.data() + number * kStackBytes;
        lane.start.uc_stack.ss_size = kStackBytes;
        lane.start.uc_link = nullptr;
        makecontext(&lane.start, &Block::enter, 0);
        setcontext(&lane.start);
    }

    bool all(int first, int count, Meeting at) const {
        for (int i = first; i < first + count; ++i) {
            if (lanes_[i].at != at) {
                return false;
            }
        }
        return true;
    }

    bool can_run(int warp) const {
        const Meeting at = lanes_[warp * kWarp].at;
        return at != Meeting::block_barrier && at != Meeting::done;
    }

    void release(int first, int count) {
        for (int i = first; i < first + count; ++i) {
            lanes_[i].at = Meeting::none;
        }
    }

    // Run a warp to its next meeting and hold it, or leave it waiting for the block.
    void step(int warp) {
        const int first = warp * kWarp;
        for (int i = first; i < first + kWarp && *error_ == '\0'; ++i) {
            run_lane(i);
        }
        const Meeting at = lanes_[first].at;
        if (*error_ != '\0') {
            return;
        }
        if (!all(first, kWarp, at)) {
            fail("the threads of a warp meet at different instructions");
        } else if (at == Meeting::multiply) {
            multiply(&lanes_[first]);
        } else if (at == Meeting::load || at == Meeting::load_transposed) {
            load(&lanes_[first], at == Meeting::load_transposed);
        } else if (at == Meeting::shuffle) {
            shuffle(&lanes_[first]);
        }
    }

    // mma.m16n8k16: thread (g, t) = (lane / 4, lane % 4). a0 a1 a2 a3 hold rows g, g+8, g, g+8 and columns 2t, 2t+1 of
    // the lower, lower, upper, upper half; b0 b1 hold rows 2t, 2t+1 of the lower and upper half, column g; the
    // accumulator holds rows g, g, g+8, g+8 and columns 2t, 2t+1, 2t, 2t+1.
    void multiply(Lane* warp) {
        ++counts_->multiplies;
        float a[16][16], b[16][8];
        for (int lane = 0; lane < kWarp; ++lane) {
            const Offer& offer = warp[lane].offer;
            const int g = lane / 4, t = lane % 4;
            for (int i = 0; i < 2; ++i) {
                for (int r = 0; r < 4; ++r) {
                    a[g + 8 * (r % 2)][2 * t + i + 8 * (r / 2)] = half_of(offer, offer.a[r], i);
                }
                for (int r = 0; r < 2; ++r) {
                    b[2 * t + i + 8 * r][g] = half_of(offer, offer.b[r], i);
                }
            }
        }
        for (int lane = 0; lane < kWarp; ++lane) {
            const int g = lane / 4, t = lane % 4;
            for (int r = 0; r < 4; ++r) {
                float sum = warp[lane].offer.acc[r];
                for (int k = 0; k < 16; ++k) {
                    sum += a[g + 8 * (r / 2)][k] * b[k][2 * t + r % 2];
                }
                warp[lane].offer.acc[r] = sum;
            }
        }
    }

    static float half_of(const Offer& offer, uint32_t pair, int i) {
        return offer.to_float(static_cast<uint16_t>(i == 0 ? pair & 0xffffu : pair >> 16));
    }

    // ldmatrix.x4: lane 8 m + r points at row r of matrix m; thread (g, t) gets columns 2t, 2t+1 of row g, or of the
    // transposed matrix.
    void load(Lane* warp, bool transposed) {
        ++counts_->loads;
        for (int matrix = 0; matrix < 4; ++matrix) {
            uint16_t values[8][8];
            unsigned banks = 0;
            for (int row = 0; row < 8; ++row) {
                const void* address = warp[8 * matrix + row].offer.row;
                check_shared(address);
                std::memcpy(values[row], address, 16);
                banks |= 1u << (reinterpret_cast<uintptr_t>(address) / 16 % 8);
            }
            counts_->conflicts += banks != 0xffu;
            for (int lane = 0; lane < kWarp; ++lane) {
                const int g = lane / 4, t = lane % 4;
                const uint16_t low = transposed ? values[2 * t][g] : values[g][2 * t];
                const uint16_t high = transposed ? values[2 * t + 1][g] : values[g][2 * t + 1];
                warp[lane].offer.out[matrix] = low | static_cast<uint32_t>(high) << 16;
            }
        }
    }

    void shuffle(Lane* warp) {
        for (int lane = 0; lane < kWarp; ++lane) {
            *warp[lane].offer.acc = warp[lane ^ warp[lane].offer.mask].offer.value;
        }
    }

    void check_shared(const void* address) {
        const auto* byte = static_cast<const unsigned char*>(address);
        const bool inside = byte >= shared() && byte + 16 <= shared() + (shared_.size() - 128);
        if (!inside || (byte - shared()) % 16 != 0) {
            fail("an address outside shared memory, or no multiple of 16");
        }
    }

    void fail(const char* what) {
        if (*error_ == '\0') {
            error_ = what;
        }
    }

    static void arrive(const Copy& copy) {
        if (copy.valid) {
            std::memcpy(copy.shared, copy.global, 16);
        } else {
            std::memset(copy.shared, 0, 16);
        }
    }

    bool chance(unsigned one_in) { return random_() % one_in == 0; }

    std::vector<Lane> lanes_;
    std::vector<unsigned char> stacks_;
    std::vector<unsigned char> shared_;
    std::minstd_rand random_;
    const std::function<void()>* body_ = nullptr;
    Index block_{};
    Counts* counts_ = nullptr;
    const char* error_ = "";
    int running_ = 0;
    jmp_buf scheduler_;
};

} // namespace emulation
