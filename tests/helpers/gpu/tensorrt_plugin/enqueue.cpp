// Calls the plugin's enqueue on a GPU, with fresh random inputs, NaN in the whole output, and float64 to compare with.
// Prints one "case error" a line, the error in units of fp16's rounding of the largest value.
//
//   enqueue PLUGIN SEED
#include <NvInferRuntime.h>

#include <cuda_fp16.h>
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

using namespace nvinfer1;

namespace {

struct Case {
    char const* name;
    int32_t batch, heads, head_dim, frames, query_tokens, key_tokens, full_tokens; // full_tokens 0: shared branches
    float alpha;
};

constexpr Case kCases[] = {{"rap", 2, 12, 128, 11, 256, 32, 0, 0.5f},   {"nano", 1, 4, 64, 5, 64, 8, 0, 0.4f},
                           {"odd", 3, 5, 128, 7, 61, 37, 0, 0.7f},      {"separate", 2, 3, 64, 3, 19, 37, 101, 0.3f},
                           {"window_alone", 1, 2, 64, 3, 9, 5, 0, 1.0f}, {"full_alone", 1, 2, 64, 3, 9, 5, 0, 0.0f}};

void check(cudaError_t status, char const* what) {
    if (status != cudaSuccess) {
        std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
        std::exit(2);
    }
}

// A tensor [batch, tokens, heads * d] of halves on both sides.
class Tensor {
  public:
    Tensor(Case const& c, int64_t tokens) : tokens_(tokens), width_(c.heads * c.head_dim) {
        host.resize(c.batch * tokens * width_, __ushort_as_half(0x7e00)); // NaN
        check(cudaMalloc(&device, host.size() * sizeof(__half)), "cudaMalloc");
        upload();
    }
    Tensor(Tensor const&) = delete;
    ~Tensor() { cudaFree(device); }

    void fill(std::mt19937& random) {
        std::normal_distribution<float> normal;
        for (__half& value : host) {
            value = __float2half(normal(random));
        }
        upload();
    }
    void upload() {
        check(cudaMemcpy(device, host.data(), host.size() * sizeof(__half), cudaMemcpyHostToDevice), "upload");
    }
    void download() {
        check(cudaMemcpy(host.data(), device, host.size() * sizeof(__half), cudaMemcpyDeviceToHost), "download");
    }
    double at(int64_t row, int64_t token, int64_t column) const {
        return __half2float(host[(row * tokens_ + token) * width_ + column]);
    }

    std::vector<__half> host;
    void* device = nullptr;

  private:
    int64_t tokens_, width_;
};

// Adds weight * softmax(q k^T / sqrt(d)) v over keys [first, first + count) to `out` [head_dim].
void attend(Case const& c, Tensor const& q, Tensor const& k, Tensor const& v, int64_t row, int64_t query,
            int64_t column, int64_t first, int64_t count, double weight, std::vector<double>& out) {
    std::vector<double> scores(count);
    double top = -INFINITY, total = 0.0;
    for (int64_t j = 0; j < count; ++j) {
        double sum = 0.0;
        for (int d = 0; d < c.head_dim; ++d) {
            sum += q.at(row, query, column + d) * k.at(row, first + j, column + d);
        }
        scores[j] = sum / std::sqrt(c.head_dim);
        top = std::fmax(top, scores[j]);
    }
    for (double& score : scores) {
        total += score = std::exp(score - top);
    }
    for (int64_t j = 0; j < count; ++j) {
        for (int d = 0; d < c.head_dim; ++d) {
            out[d] += weight * scores[j] / total * v.at(row, first + j, column + d);
        }
    }
}

double run(IPluginCreatorV3One& creator, Case const& c, std::mt19937& random, cudaStream_t stream) {
    int64_t const queries = int64_t{c.frames} * c.query_tokens, keys = int64_t{c.frames} * c.key_tokens;
    bool const shared = c.full_tokens == 0;
    int64_t const full = shared ? keys : c.full_tokens;
    Tensor q(c, queries), k(c, keys), v(c, keys), fk(c, full), fv(c, full), out(c, queries);
    for (Tensor* tensor : {&q, &k, &v, &fk, &fv}) {
        tensor->fill(random);
    }
    Tensor const& full_key = shared ? k : fk;
    Tensor const& full_value = shared ? v : fv;

    PluginField const fields[] = {{"num_heads", &c.heads, PluginFieldType::kINT32, 1},
                                  {"frames", &c.frames, PluginFieldType::kINT32, 1},
                                  {"alpha", &c.alpha, PluginFieldType::kFLOAT32, 1}};
    PluginFieldCollection const collection{3, fields};
    std::unique_ptr<IPluginV3> const plugin(creator.createPlugin("layer", &collection, TensorRTPhase::kRUNTIME));
    auto* const runtime =
        static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    int64_t const tokens[] = {queries, keys, keys, full, full, queries};
    PluginTensorDesc descs[6];
    for (int i = 0; i < 6; ++i) {
        descs[i].dims = Dims3{c.batch, tokens[i], c.heads * c.head_dim};
        descs[i].type = DataType::kHALF;
        descs[i].format = TensorFormat::kLINEAR;
    }
    void const* const inputs[] = {q.device, k.device, v.device, full_key.device, full_value.device};
    void* const outputs[] = {out.device};
    if (runtime->onShapeChange(descs, 5, &descs[5], 1) != 0 ||
        runtime->enqueue(descs, &descs[5], inputs, outputs, nullptr, stream) != 0) {
        return INFINITY;
    }
    check(cudaStreamSynchronize(stream), "enqueue");
    out.download();

    double worst = 0.0, largest = 0.0;
    for (__half const value : v.host) {
        largest = std::fmax(largest, std::fabs(__half2float(value)));
    }
    std::vector<double> expected(c.head_dim);
    for (int64_t row = 0; row < c.batch; ++row) {
        for (int64_t head = 0; head < c.heads; ++head) {
            // Every seventh query is enough for the host, and meets every frame and every row of a tile.
            for (int64_t query = row; query < queries; query += 7) {
                std::fill(expected.begin(), expected.end(), 0.0);
                int64_t const column = head * c.head_dim, first = query / c.query_tokens * c.key_tokens;
                attend(c, q, k, v, row, query, column, first, c.key_tokens, c.alpha, expected);
                attend(c, q, full_key, full_value, row, query, column, 0, full, 1.0 - c.alpha, expected);
                for (int d = 0; d < c.head_dim; ++d) {
                    double const error = std::fabs(out.at(row, query, column + d) - expected[d]);
                    worst = std::isnan(error) ? INFINITY : std::fmax(worst, error);
                }
            }
        }
    }
    return worst / (std::ldexp(1.0, -10) * largest);
}

} // namespace

int main(int argc, char** argv) {
    void* const library = argc == 3 ? dlopen(argv[1], RTLD_NOW) : nullptr;
    if (library == nullptr) {
        std::fprintf(stderr, "usage: enqueue PLUGIN SEED (%s)\n", argc == 3 ? dlerror() : "two arguments");
        return 2;
    }
    cudaStream_t stream;
    check(cudaStreamCreate(&stream), "no GPU");
    using GetCreators = IPluginCreatorInterface* const* (*)(int32_t&);
    int32_t count = 0;
    auto* const* creators = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"))(count);
    auto& creator = static_cast<IPluginCreatorV3One&>(*creators[0]);
    std::mt19937 random(static_cast<unsigned>(std::atoi(argv[2])));
    for (Case const& c : kCases) {
        std::printf("%s %.4f\n", c.name, run(creator, c, random, stream));
    }
    return 0;
}
