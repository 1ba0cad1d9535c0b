// The softmaxes of a warp's query rows over both branches, with one sum over the values.
//
// Scores are weighed as they come, relative to a shift that follows the largest score of a row (the online softmax of
// FlashAttention, arXiv 2205.14135, 2307.08691). The shift is raised only when a score exceeds it 2^8 times: weights up to
// that are as exact, and the sum is seldom scaled. When the window's tiles come, last, the weights of either branch are
// made relative to a shift of its own, so that a window far below the other scores keeps its weight.
#pragma once

#include "key_walk.cuh"

namespace rap {

constexpr float kMostExponent = 8.0f; // of a weight, to base 2

template <class Products> struct HybridSoftmax {
    static constexpr int kGroups = Products::kRowGroups;
    using T = typename Products::T;

    // A lane has rows lane / 4 and 8 below of each group.
    float sum[kGroups][Products::kHeadDim / 8][4];
    float shift[kGroups][2];
    float normaliser[kGroups][2]; // of this lane's keys alone, as `window_normaliser`
    float window_shift[kGroups][2];
    float window_normaliser[kGroups][2];

    __device__ __forceinline__ void reset() {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int n = 0; n < Products::kHeadDim / 8; ++n) {
                sum[group][n][0] = sum[group][n][1] = sum[group][n][2] = sum[group][n][3] = 0.0f;
            }
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                shift[group][row] = window_shift[group][row] = -INFINITY;
                normaliser[group][row] = window_normaliser[group][row] = 0.0f;
            }
        }
    }

    // Turn scores of keys of the full branch alone into weights.
    template <int Keys>
    __device__ __forceinline__ void weigh(float (&scores)[kGroups][Keys / 8][4], int keys, float scale_log2) {
        if (keys < Keys) {
#pragma unroll
            for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (column(n, i) >= keys) {
#pragma unroll
                        for (int group = 0; group < kGroups; ++group) {
                            scores[group][n][i] = -INFINITY;
                        }
                    }
                }
            }
        }
        float top[kGroups][2];
        bool higher = false;
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                float most = -INFINITY;
#pragma unroll
                for (int n = 0; n < Keys / 8; ++n) {
                    most = fmaxf(most, fmaxf(scores[group][n][2 * row], scores[group][n][2 * row + 1]));
                }
                top[group][row] = largest_of_quad(most) * scale_log2;
                higher = higher || top[group][row] > shift[group][row] + kMostExponent;
            }
        }
        if (tile::any(higher)) {
            raise(top);
        }
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    scores[group][n][i] = tile::exp2(scores[group][n][i] * scale_log2 - shift[group][i / 2]);
                    normaliser[group][i / 2] += scores[group][n][i];
                }
            }
        }
    }

    // The same for a tile with keys of the window; its keys of the full branch are weighed relative to `shift`.
    // `within`: the window's keys belong to the full branch too.
    template <int Keys>
    __device__ __forceinline__ void weigh_window(float (&scores)[kGroups][Keys / 8][4], const Columns& columns,
                                                 bool within, float scale_log2) {
        float top[kGroups][2];
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                float most = -INFINITY, outside = -INFINITY;
#pragma unroll
                for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
                    for (int i = 2 * row; i < 2 * row + 2; ++i) {
                        const float score = scores[group][n][i];
                        const bool window = in_window(n, i, columns);
                        most = fmaxf(most, window ? score : -INFINITY);
                        outside = fmaxf(outside, window || column(n, i) >= columns.keys ? -INFINITY : score);
                    }
                }
                most = fmaxf(window_shift[group][row], largest_of_quad(most) * scale_log2);
                // So far there may have been none.
                const float shrink = tile::exp2(window_shift[group][row] - most);
                window_normaliser[group][row] *= most > window_shift[group][row] ? shrink : 1.0f;
                window_shift[group][row] = most;
                outside = largest_of_quad(outside) * scale_log2;
                top[group][row] = within ? fmaxf(most, outside) : outside;
            }
        }
        if (within) {
            raise(top);
        }
        exponentiate<Keys>(scores, columns, scale_log2);
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const bool window = in_window(n, i, columns);
                    window_normaliser[group][i / 2] += window ? scores[group][n][i] : 0.0f;
                    normaliser[group][i / 2] += window ? 0.0f : scores[group][n][i];
                }
            }
        }
    }

    // Weights of a window's tile whose shifts are known.
    template <int Keys>
    __device__ __forceinline__ void exponentiate(float (&scores)[kGroups][Keys / 8][4], const Columns& columns,
                                                 float scale_log2) const {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float window = window_shift[group][i / 2], full = shift[group][i / 2];
                    const float below = in_window(n, i, columns) ? window : full;
                    const float weight = tile::exp2(scores[group][n][i] * scale_log2 - below);
                    scores[group][n][i] = column(n, i) < columns.keys ? weight : 0.0f;
                }
            }
        }
    }

    // All weights are known: from here on `normaliser` and `window_normaliser` are the factors of the full branch's and
    // the window's weights, and the sum is a part of the result.
    __device__ __forceinline__ void blend(float alpha, bool within, bool has_full) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                const float window = total_of_quad(window_normaliser[group][row]);
                // Of a window's weight, in units of the full branch's.
                const float unit = within ? tile::exp2(window_shift[group][row] - shift[group][row]) : 0.0f;
                const float full = total_of_quad(normaliser[group][row]) + window * unit;
                const float factor = has_full ? (1.0f - alpha) * tile::reciprocal(full) : 0.0f;
                normaliser[group][row] = factor;
                window_normaliser[group][row] = alpha * tile::reciprocal(window) + factor * unit;
                scale_sum(group, row, factor);
            }
        }
    }

    template <int Keys>
    __device__ __forceinline__ void apply_blend(float (&weights)[kGroups][Keys / 8][4], const Columns& columns) const {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float window = window_normaliser[group][i / 2], full = normaliser[group][i / 2];
                    weights[group][n][i] *= in_window(n, i, columns) ? window : full;
                }
            }
        }
    }

    // Without a window: divide by what the weights add up to.
    __device__ __forceinline__ void normalise() {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                scale_sum(group, row, tile::reciprocal(total_of_quad(normaliser[group][row])));
            }
        }
    }

  private:
    __device__ __forceinline__ void raise(const float (&top)[kGroups][2]) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                const float higher = fmaxf(shift[group][row], top[group][row]);
                const float shrink = tile::exp2(shift[group][row] - higher);
                shift[group][row] = higher;
                normaliser[group][row] *= shrink;
                scale_sum(group, row, shrink);
            }
        }
    }

    __device__ __forceinline__ void scale_sum(int group, int row, float factor) {
#pragma unroll
        for (int n = 0; n < Products::kHeadDim / 8; ++n) {
            sum[group][n][2 * row] *= factor;
            sum[group][n][2 * row + 1] *= factor;
        }
    }

    static __device__ __forceinline__ int column(int n, int i) { return n * 8 + (threadIdx.x % 4) * 2 + i % 2; }

    static __device__ __forceinline__ bool in_window(int n, int i, const Columns& columns) {
        return column(n, i) >= columns.first && column(n, i) < columns.past;
    }

    static __device__ __forceinline__ float largest_of_quad(float value) {
        const float pair = fmaxf(value, tile::shuffle_xor(value, 1));
        return fmaxf(pair, tile::shuffle_xor(pair, 2));
    }

    static __device__ __forceinline__ float total_of_quad(float value) {
        const float pair = value + tile::shuffle_xor(value, 1);
        return pair + tile::shuffle_xor(pair, 2);
    }
};

} // namespace rap
