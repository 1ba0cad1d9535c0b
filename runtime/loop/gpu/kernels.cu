// What a chunk does between two engines; the numbers are those of carry.py, color.py, noise.py and sampler.py.
//
// Compiled by NVRTC for the GPU that is there. Loops stride over the grid, so any launch shape gives the same result.

typedef unsigned char byte;
typedef unsigned int word;

#define FOR_EACH(i, count) \
    for (word i = blockIdx.x * blockDim.x + threadIdx.x; i < (count); i += gridDim.x * blockDim.x)

// Words of the control buffer, which the host writes before every chunk; see operations.py.
enum { kSeed = 0, kChunk = 2, kHasPast = 4, kPlaces = 5 };

// Layout of the colour tables; see operations.py.
enum { kToXyz = 0, kFromXyz = 9, kMean = 18, kDeviation = 21 };

constexpr int kColorThreads = 256;
// Those of color.py.
constexpr float kFlattest = 0.1f, kEpsilon = 0.008856f, kKappa = 903.3f;

struct Vector {
    float x, y, z;
};

static __device__ void normal4(word counter, word draw, const word* control, float* out) {
    word c0 = counter, c1 = draw, c2 = control[kChunk], c3 = control[kChunk + 1];
    word k0 = control[kSeed], k1 = control[kSeed + 1];
    for (int round = 0; round < 10; ++round) {
        const word high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const word high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const double step = 1.0 / 4294967296.0, turn = 6.283185307179586;
    const double length0 = sqrt(-2.0 * log((c0 + 0.5) * step)), angle0 = turn * ((c1 + 0.5) * step);
    const double length1 = sqrt(-2.0 * log((c2 + 0.5) * step)), angle1 = turn * ((c3 + 0.5) * step);
    out[0] = static_cast<float>(length0 * cos(angle0));
    out[1] = static_cast<float>(length0 * sin(angle0));
    out[2] = static_cast<float>(length1 * cos(angle1));
    out[3] = static_cast<float>(length1 * sin(angle1));
}

static __device__ Vector times(Vector v, const float* matrix) {
    return {v.x * matrix[0] + v.y * matrix[3] + v.z * matrix[6], v.x * matrix[1] + v.y * matrix[4] + v.z * matrix[7],
            v.x * matrix[2] + v.y * matrix[5] + v.z * matrix[8]};
}

static __device__ float lab_curve(float t) {
    t = fminf(fmaxf(t, 1e-8f), 1.0f);
    return t > kEpsilon ? cbrtf(t) : (kKappa * t + 16.0f) / 116.0f;
}

static __device__ float lab_curve_back(float f) {
    const float cube = f * f * f;
    return cube > kEpsilon ? cube : (116.0f * f - 16.0f) / kKappa;
}

static __device__ float to_linear(float pixel) {
    const float light = (pixel + 1.0f) * 0.5f;
    return light > 0.04045f ? powf((light + 0.055f) / 1.055f, 2.4f) : light / 12.92f;
}

static __device__ Vector to_lab(const float* pixel, const float* tables) {
    const Vector xyz = times({to_linear(pixel[0]), to_linear(pixel[1]), to_linear(pixel[2])}, tables + kToXyz);
    const float x = lab_curve(xyz.x), y = lab_curve(xyz.y), z = lab_curve(xyz.z);
    return {116.0f * y - 16.0f, 500.0f * (x - y), 200.0f * (y - z)};
}

static __device__ float to_pixel(float light) {
    light = fminf(fmaxf(light, 0.0f), 1.0f);
    const float encoded = light > 0.0031308f ? 1.055f * powf(light, 1.0f / 2.4f) - 0.055f : 12.92f * light;
    return encoded * 2.0f - 1.0f;
}

// The sum over the block, for every thread.
static __device__ Vector block_sum(Vector value) {
    __shared__ Vector partial[kColorThreads];
    const word thread = threadIdx.x;
    partial[thread] = value;
    __syncthreads();
    for (word half = blockDim.x / 2; half > 0; half /= 2) {
        if (thread < half) {
            partial[thread].x += partial[thread + half].x;
            partial[thread].y += partial[thread + half].y;
            partial[thread].z += partial[thread + half].z;
        }
        __syncthreads();
    }
    const Vector sum = partial[0];
    __syncthreads();
    return sum;
}

extern "C" __global__ void clear_flags(word* flags, word count) {
    FOR_EACH(i, count) { flags[i] = 0; }
}

extern "C" __global__ void set_value(float* out, float value, word count) {
    FOR_EACH(i, count) { out[i] = value; }
}

// Sets flags[stage] if a value is NaN or Inf.
extern "C" __global__ void check_finite(const float* values, word* flags, word stage, word count) {
    FOR_EACH(i, count) {
        if (!isfinite(values[i])) {
            flags[stage] = 1;
        }
    }
}

// out[row] = features[windows[row]], rows of `width` values.
extern "C" __global__ void gather_windows(float* out, const float* features, const word* windows, word width,
                                          word count) {
    FOR_EACH(i, count) { out[i] = features[windows[i / width] * width + i % width]; }
}

extern "C" __global__ void normal_noise(float* out, const word* control, word draw, word count) {
    FOR_EACH(block, (count + 3) / 4) {
        float four[4];
        normal4(block, draw, control, four);
        for (word i = 0; i < 4 && block * 4 + i < count; ++i) {
            out[block * 4 + i] = four[i];
        }
    }
}

// The noisy carry at one level: latents [channels, frames, cells] get the past's first `carried` frames, or the
// portrait at this level on the first chunk, and their last ones go into next [levels, channels, carried, cells].
// `initial` is the chunk's initial noise, `portrait` [channels, cells].
extern "C" __global__ void carry_noisy(float* latents, const float* initial, const float* portrait, const float* path,
                                       float* next, const word* control, word level, float noise_share, word carried,
                                       word frames, word cells, word channels) {
    const bool has_past = control[kHasPast] != 0;
    const word upper = control[kPlaces + 2 * level];
    const float share = __uint_as_float(control[kPlaces + 2 * level + 1]);
    const word size = channels * carried * cells;
    const float* above = path + upper * size;
    const float* below = share > 0.0f ? above + size : above;
    FOR_EACH(i, channels * cells) {
        const word channel = i / cells, cell = i % cells;
        float* column = latents + channel * frames * cells + cell;
        const word first = channel * carried * cells + cell;
        if (has_past) {
            for (word frame = 0; frame < carried; ++frame) {
                const word at = first + frame * cells;
                column[frame * cells] = above[at] + share * (below[at] - above[at]);
            }
        } else {
            column[0] = (1.0f - noise_share) * portrait[i] + noise_share * initial[channel * frames * cells + cell];
        }
        for (word frame = 0; frame < carried; ++frame) {
            next[level * size + first + frame * cells] = column[(frames - carried + frame) * cells];
        }
    }
}

// The clean carry: past [channels, carried, cells] or the portrait [channels, cells] at every level alike.
extern "C" __global__ void carry_clean(float* latents, const float* portrait, const float* past, const word* control,
                                       word carried, word frames, word cells, word channels) {
    const bool has_past = control[kHasPast] != 0;
    const float* source = has_past ? past : portrait;
    const word placed = has_past ? carried : 1;
    FOR_EACH(i, channels * placed * cells) {
        const word channel = i / (placed * cells);
        latents[channel * frames * cells + i % (placed * cells)] = source[i];
    }
}

// Guidance: velocity becomes without + scale (velocity - without).
extern "C" __global__ void guide(float* velocity, const float* without, float scale, word count) {
    FOR_EACH(i, count) { velocity[i] = (velocity[i] - without[i]) * scale + without[i]; }
}

extern "C" __global__ void euler_step(float* latents, const float* velocity, float scale, word count) {
    FOR_EACH(i, count) { latents[i] += scale * velocity[i]; }
}

extern "C" __global__ void renoise_step(float* latents, const float* velocity, const word* control, float level,
                                        float kept, float noise_share, word draw, word count) {
    FOR_EACH(block, (count + 3) / 4) {
        float four[4];
        normal4(block, draw, control, four);
        for (word i = 0; i < 4 && block * 4 + i < count; ++i) {
            const word at = block * 4 + i;
            latents[at] = (latents[at] - level * velocity[at]) * kept + noise_share * four[i];
        }
    }
}

// Frames that are shown to pixels of -1..1.
extern "C" __global__ void to_pixels(float* pixels, const byte* frames, word count) {
    FOR_EACH(i, count) { pixels[i] = frames[i] * (1.0f / 127.5f) - 1.0f; }
}

// Mean and deviation in CIE Lab, one block per frame: statistics [frames, 6].
extern "C" __global__ void color_statistics(const float* frames, float* statistics, const float* tables, word pixels) {
    const float* frame = frames + static_cast<size_t>(blockIdx.x) * pixels * 3;
    Vector sum = {0.0f, 0.0f, 0.0f};
    for (word i = threadIdx.x; i < pixels; i += blockDim.x) {
        const Vector lab = to_lab(frame + 3 * i, tables);
        sum.x += lab.x, sum.y += lab.y, sum.z += lab.z;
    }
    sum = block_sum(sum);
    const Vector mean = {sum.x / pixels, sum.y / pixels, sum.z / pixels};
    sum = {0.0f, 0.0f, 0.0f};
    for (word i = threadIdx.x; i < pixels; i += blockDim.x) {
        const Vector lab = to_lab(frame + 3 * i, tables);
        const Vector away = {lab.x - mean.x, lab.y - mean.y, lab.z - mean.z};
        sum.x += away.x * away.x, sum.y += away.y * away.y, sum.z += away.z * away.z;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        float* out = statistics + 6 * blockIdx.x;
        out[0] = mean.x, out[1] = mean.y, out[2] = mean.z;
        out[3] = sqrtf(sum.x / pixels), out[4] = sqrtf(sum.y / pixels), out[5] = sqrtf(sum.z / pixels);
    }
}

// Pulls every frame towards the portrait's mean and deviation, in place.
extern "C" __global__ void color_match(float* frames, const float* statistics, const float* tables, float strength,
                                       word pixels, word count) {
    const float *mean = tables + kMean, *deviation = tables + kDeviation;
    FOR_EACH(i, count) {
        float* pixel = frames + static_cast<size_t>(i) * 3;
        const float* own = statistics + 6 * (i / pixels);
        Vector lab = to_lab(pixel, tables);
        lab.x = (lab.x - own[0]) * (deviation[0] / fmaxf(own[3], kFlattest)) + mean[0];
        lab.y = (lab.y - own[1]) * (deviation[1] / fmaxf(own[4], kFlattest)) + mean[1];
        lab.z = (lab.z - own[2]) * (deviation[2] / fmaxf(own[5], kFlattest)) + mean[2];
        const float y = (lab.x + 16.0f) / 116.0f;
        const Vector xyz = {lab_curve_back(y + lab.y / 500.0f), lab_curve_back(y), lab_curve_back(y - lab.z / 200.0f)};
        const Vector rgb = times(xyz, tables + kFromXyz);
        pixel[0] += strength * (to_pixel(rgb.x) - pixel[0]);
        pixel[1] += strength * (to_pixel(rgb.y) - pixel[1]);
        pixel[2] += strength * (to_pixel(rgb.z) - pixel[2]);
    }
}

// Pixels of -1..1 to the frames that are shown, rounded and clipped.
extern "C" __global__ void to_frames(byte* frames, const float* pixels, word count) {
    FOR_EACH(i, count) {
        frames[i] = static_cast<byte>(fminf(fmaxf(rintf(pixels[i] * 127.5f + 127.5f), 0.0f), 255.0f));
    }
}
