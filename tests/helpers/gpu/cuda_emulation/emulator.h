// Runs a CUDA kernel's own source on the CPU: one fiber per thread, warp-wide instructions as meeting points.
//
// Fragment layouts are those of the PTX ISA (warp-level matrix instructions), which CUTLASS's traits agree with. The
// scheduler is hostile: warps run in a random order and change places at random instructions, an asynchronous copy
// arrives either at once or at the last moment that its wait allows, and so does a product of a warpgroup; shared memory
// starts as NaN. So a missing barrier, wait or mask shows as a wrong number. A warpgroup's products see what was copied
// only after the copying threads have fenced it. Fibers switch with setjmp: fast, and it works wherever glibc does.
#pragma once

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <ucontext.h>
#include <vector>

#include "shared_operand.h"

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kGroupWarps = 4;
constexpr size_t kStackBytes = 64 << 10;

struct Index {
    uint32_t x, y, z;
};

enum class Meeting {
    none,
    multiply,
    load,
    load_transposed,
    shuffle,
    vote,
    group_fence,
    group_multiply,
    group_commit,
    group_wait,
    block_barrier,
    done
};

struct Copy {
    uint32_t shared;
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
    uint32_t row;
    uint32_t word; // shuffled, or voted with
    int mask;
    uint64_t descriptor; // of a warpgroup's operand in shared memory
    int columns;
    bool transposed, add;
    int newest;
};

// A product of one warp of a warpgroup: 16 rows of `columns`.
struct Product {
    Offer lanes[kWarp];
};

// What a warp has under way.
struct Warp {
    std::vector<Product> open;
    std::vector<std::vector<Product>> groups;
    bool fenced;
    uint64_t trace; // of its warpgroup instructions
};

struct Lane {
    ucontext_t start;
    jmp_buf resume;
    bool started;
    Meeting at;
    Offer offer;
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open;
    std::vector<uint32_t> unpublished; // vectors that came into shared memory
};

struct Counts {
    uint64_t multiplies; // m16n8k16, all warps; others as so many of these
    uint64_t loads;      // ldmatrix.x4
    uint64_t conflicts;  // octets of rows that share banks
};

class Block {
  public:
    Block(int threads, size_t shared_bytes, uint64_t seed)
        : lanes_(threads), warps_(threads / kWarp), stacks_(threads * kStackBytes), shared_(shared_bytes),
          published_(shared_bytes), random_(seed) {}

    // Returns "" or what the kernel did that no GPU would allow.
    const char* run(const std::function<void()>& body, Index block, Counts* counts) {
        body_ = &body;
        block_ = block;
        counts_ = counts;
        error_ = "";
        std::memset(shared_.data(), 0xff, shared_.size());
        std::memset(published_.data(), 0xff, published_.size());
        for (Warp& warp : warps_) {
            warp = {};
        }
        for (Lane& lane : lanes_) {
            lane.started = false;
            lane.at = Meeting::none;
            lane.groups.clear();
            lane.open.clear();
            lane.unpublished.clear();
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
                if (!group.empty()) {
                    fail("a copy was never waited for");
                }
            }
        }
        for (size_t i = 0; i < warps_.size(); ++i) {
            if (!warps_[i].open.empty() || pending(warps_[i])) {
                fail("a product was never waited for");
            }
            if (warps_[i].trace != warps_[i / kGroupWarps * kGroupWarps].trace) {
                fail("the warps of a warpgroup do not act alike");
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
            if (inside(copy.shared)) {
                std::memset(&shared_[copy.shared], 0xff, 16);
            }
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

    // What this thread's copies brought is seen by products of warpgroups.
    void publish() {
        Lane& lane = lanes_[running_];
        for (const uint32_t address : lane.unpublished) {
            std::memcpy(&published_[address], &shared_[address], 16);
        }
        lane.unpublished.clear();
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
        Warp& own = warps_[warp];
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
        } else if (at == Meeting::vote) {
            vote(&lanes_[first]);
        } else if (at == Meeting::group_fence) {
            own.fenced = true;
        } else if (at == Meeting::group_multiply) {
            start_product(own, &lanes_[first]);
        } else if (at == Meeting::group_commit) {
            own.groups.push_back(own.open);
            own.open.clear();
            own.fenced = false;
            finish_products(own, chance(2) ? 0 : own.groups.size());
        } else if (at == Meeting::group_wait) {
            finish_products(own, lanes_[first].offer.newest);
        }
    }

    static bool pending(const Warp& warp) {
        for (const auto& group : warp.groups) {
            if (!group.empty()) {
                return true;
            }
        }
        return false;
    }

    void start_product(Warp& warp, const Lane* lanes) {
        Product product;
        for (int lane = 0; lane < kWarp; ++lane) {
            product.lanes[lane] = lanes[lane].offer;
        }
        const Offer& offer = product.lanes[0];
        if (!warp.fenced) {
            fail("a warpgroup's product whose registers were not fenced");
        }
        warp.trace = warp.trace * 1000003 + offer.descriptor * 4 + offer.transposed * 2 + offer.add;
        warp.open.push_back(product);
    }

    void finish_products(Warp& warp, size_t newest) {
        for (size_t i = 0; i + newest < warp.groups.size(); ++i) {
            for (const Product& product : warp.groups[i]) {
                finish(product);
            }
            warp.groups[i].clear();
        }
    }

    // wgmma with the rows of one warp.
    void finish(const Product& product) {
        const Offer& first = product.lanes[0];
        counts_->multiplies += first.columns / 8;
        const SharedOperand operand(first.descriptor, first.transposed);
        if (!operand.is_sound()) {
            fail("a descriptor that is not of the 128-byte swizzle");
            return;
        }
        static float b[16][256];
        for (int k = 0; k < 16; ++k) {
            for (int n = 0; n < first.columns; ++n) {
                const uint32_t address = operand.address(k, n);
                if (address + 2 > published_.size()) {
                    fail("an address outside shared memory, or no multiple of 16");
                    return;
                }
                uint16_t bits;
                std::memcpy(&bits, &published_[address], 2);
                b[k][n] = first.to_float(bits);
            }
        }
        float a[16][16];
        for (int lane = 0; lane < kWarp; ++lane) {
            for (int r = 0; r < 4; ++r) {
                for (int i = 0; i < 2; ++i) {
                    const Offer& offer = product.lanes[lane];
                    a[lane / 4 + 8 * (r % 2)][2 * (lane % 4) + i + 8 * (r / 2)] = half_of(offer, offer.a[r], i);
                }
            }
        }
        for (int lane = 0; lane < kWarp; ++lane) {
            const Offer& offer = product.lanes[lane];
            for (int i = 0; i < offer.columns / 2; ++i) {
                float sum = offer.add ? offer.acc[i] : 0.0f;
                for (int k = 0; k < 16; ++k) {
                    sum += a[lane / 4 + 8 * (i / 2 % 2)][k] * b[k][i / 4 * 8 + 2 * (lane % 4) + i % 2];
                }
                offer.acc[i] = sum;
            }
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
                const uint32_t address = warp[8 * matrix + row].offer.row;
                check_shared(address);
                if (!inside(address)) {
                    return;
                }
                std::memcpy(values[row], &shared_[address], 16);
                banks |= 1u << (address / 16 % 8);
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
            *warp[lane].offer.out = warp[lane ^ warp[lane].offer.mask].offer.word;
        }
    }

    void vote(Lane* warp) {
        uint32_t any = 0;
        for (int lane = 0; lane < kWarp; ++lane) {
            any |= warp[lane].offer.word;
        }
        for (int lane = 0; lane < kWarp; ++lane) {
            *warp[lane].offer.out = any;
        }
    }

    bool inside(uint32_t address) const { return uint64_t{address} + 16 <= shared_.size(); }

    void check_shared(uint32_t address) {
        if (!inside(address) || address % 16 != 0) {
            fail("an address outside shared memory, or no multiple of 16");
        }
    }

    void fail(const char* what) {
        if (*error_ == '\0') {
            error_ = what;
        }
    }

    void arrive(const Copy& copy) {
        if (!inside(copy.shared)) {
            return;
        }
        if (copy.valid) {
            std::memcpy(&shared_[copy.shared], copy.global, 16);
        } else {
            std::memset(&shared_[copy.shared], 0, 16);
        }
        lanes_[running_].unpublished.push_back(copy.shared);
    }

    bool chance(unsigned one_in) { return random_() % one_in == 0; }

    std::vector<Lane> lanes_;
    std::vector<Warp> warps_;
    std::vector<unsigned char> stacks_;
    std::vector<unsigned char> shared_;
    std::vector<unsigned char> published_; // shared memory as products of warpgroups see it
    std::minstd_rand random_;
    const std::function<void()>* body_ = nullptr;
    Index block_{};
    Counts* counts_ = nullptr;
    const char* error_ = "";
    int running_ = 0;
    jmp_buf scheduler_;
};

} // namespace emulation
