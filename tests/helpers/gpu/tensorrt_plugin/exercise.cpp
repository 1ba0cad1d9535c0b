// Loads the plugin into a real TensorRT registry and calls everything that needs no GPU; prints "name value" lines.
//
//   exercise LIBNVINFER PLUGIN
#include <NvInferRuntime.h>

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

using namespace nvinfer1;

namespace {

constexpr int kTensors = 6; // five inputs and the output

void say(char const* name, long value) { std::printf("%s %ld\n", name, value); }

struct Attributes {
    int32_t num_heads = 12, frames = 11;
    float alpha = 0.25f;
};

std::unique_ptr<IPluginV3> create(IPluginCreatorV3One& creator, Attributes const& attributes, int fields = 3,
                                  PluginFieldType heads_type = PluginFieldType::kINT32) {
    PluginField const all[] = {{"num_heads", &attributes.num_heads, heads_type, 1},
                               {"frames", &attributes.frames, PluginFieldType::kINT32, 1},
                               {"alpha", &attributes.alpha, PluginFieldType::kFLOAT32, 1}};
    PluginFieldCollection const collection{fields, all};
    return std::unique_ptr<IPluginV3>(creator.createPlugin("layer", &collection, TensorRTPhase::kBUILD));
}

template <class T> T* capability(IPluginV3& plugin, PluginCapabilityType type) {
    return static_cast<T*>(plugin.getCapabilityInterface(type));
}

std::vector<PluginTensorDesc> descriptions(int64_t queries, int64_t keys, int64_t full_keys, int64_t width,
                                           DataType type = DataType::kHALF) {
    int64_t const tokens[kTensors] = {queries, keys, keys, full_keys, full_keys, queries};
    std::vector<PluginTensorDesc> descs(kTensors);
    for (int i = 0; i < kTensors; ++i) {
        descs[i].dims = Dims3{2, tokens[i], width};
        descs[i].type = type;
        descs[i].format = TensorFormat::kLINEAR;
    }
    return descs;
}

std::vector<DynamicPluginTensorDesc> dynamic(std::vector<PluginTensorDesc> const& descs) {
    std::vector<DynamicPluginTensorDesc> out(descs.size());
    for (size_t i = 0; i < descs.size(); ++i) {
        out[i].desc = descs[i];
        out[i].min = out[i].max = out[i].opt = descs[i].dims;
    }
    return out;
}

void exercise(IPluginCreatorV3One& creator) {
    std::printf("version %s\n", creator.getPluginVersion());
    for (int i = 0; i < creator.getFieldNames()->nbFields; ++i) {
        PluginField const& field = creator.getFieldNames()->fields[i];
        std::printf("field.%s %d\n", field.name, static_cast<int>(field.type));
    }
    Attributes bad_alpha, bad_heads;
    bad_alpha.alpha = 1.5f;
    bad_heads.num_heads = 0;
    say("created.without_alpha", create(creator, {}, 2) != nullptr);
    say("created.alpha_1.5", create(creator, bad_alpha) != nullptr);
    say("created.no_heads", create(creator, bad_heads) != nullptr);
    say("created.heads_as_float", create(creator, {}, 3, PluginFieldType::kFLOAT32) != nullptr);

    std::unique_ptr<IPluginV3> const plugin = create(creator, {});
    auto* build = capability<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD);
    auto* runtime = capability<IPluginV3OneRuntime>(*plugin, PluginCapabilityType::kRUNTIME);
    std::printf("name %s\n", capability<IPluginV3OneCore>(*plugin, PluginCapabilityType::kCORE)->getPluginName());

    say("outputs", build->getNbOutputs());
    DataType const inputs[5] = {DataType::kBF16, DataType::kBF16, DataType::kBF16, DataType::kBF16, DataType::kBF16};
    DataType output{};
    say("types", build->getOutputDataTypes(&output, 1, inputs, 5));
    say("types.bf16_stays", output == DataType::kBF16);

    // The plugin passes dimensions on without looking at them, so any distinct addresses will do.
    char extents[3];
    DimsExprs query{3, {}}, shape{0, {}};
    for (int i = 0; i < 3; ++i) {
        query.d[i] = reinterpret_cast<IDimensionExpr const*>(&extents[i]);
    }
    DimsExprs const in[5] = {query, query, query, query, query};
    say("shapes", build->getOutputShapes(in, 5, nullptr, 0, &shape, 1, reinterpret_cast<IExprBuilder&>(extents)));
    say("shapes.as_query", shape.nbDims == 3 && std::memcmp(shape.d, query.d, 3 * sizeof(query.d[0])) == 0);

    struct {
        char const* name;
        DataType first, type;
        TensorFormat format;
    } const formats[] = {{"half", DataType::kHALF, DataType::kHALF, TensorFormat::kLINEAR},
                         {"bf16", DataType::kBF16, DataType::kBF16, TensorFormat::kLINEAR},
                         {"float", DataType::kFLOAT, DataType::kFLOAT, TensorFormat::kLINEAR},
                         {"mixed", DataType::kHALF, DataType::kBF16, TensorFormat::kLINEAR},
                         {"chw4", DataType::kHALF, DataType::kHALF, TensorFormat::kCHW4}};
    for (auto const& format : formats) {
        int supported = 0;
        for (int position = 0; position < kTensors; ++position) {
            auto descs = dynamic(descriptions(2816, 352, 352, 1536, format.first));
            descs[position].desc.format = format.format;
            if (position > 0) {
                descs[position].desc.type = format.type;
            }
            supported += build->supportsFormatCombination(position, descs.data(), 5, 1);
        }
        std::printf("format.%s %d\n", format.name, supported);
    }

    auto const shape_change = [&](char const* name, std::vector<PluginTensorDesc> const& descs) {
        std::printf("shape.%s %d\n", name, runtime->onShapeChange(descs.data(), 5, &descs[5], 1) == 0);
    };
    shape_change("rap", descriptions(2816, 352, 352, 1536));
    shape_change("separate", descriptions(2816, 352, 77, 1536));
    shape_change("odd_queries", descriptions(2815, 352, 352, 1536));
    shape_change("odd_keys", descriptions(2816, 353, 353, 1536));
    shape_change("head_96", descriptions(2816, 352, 352, 12 * 96));
    shape_change("odd_width", descriptions(2816, 352, 352, 1537));
    auto lacking = descriptions(2816, 352, 352, 1536);
    lacking[2].dims.d[1] = 341;
    shape_change("fewer_values", lacking);
    auto const static_shape = dynamic(descriptions(2816, 352, 352, 12 * 96));
    say("configure.head_96", build->configurePlugin(static_shape.data(), 5, &static_shape[5], 1) == 0);
    auto const free_shape = dynamic(descriptions(-1, -1, -1, 1536));
    say("configure.free_tokens", build->configurePlugin(free_shape.data(), 5, &free_shape[5], 1) == 0);
    say("workspace", static_cast<long>(build->getWorkspaceSize(free_shape.data(), 5, &free_shape[5], 1)));

    // What is written into a plan brings the same plugin back.
    PluginFieldCollection const* saved = runtime->getFieldsToSerialize();
    std::unique_ptr<IPluginV3> const loaded(creator.createPlugin("layer", saved, TensorRTPhase::kRUNTIME));
    say("restored", loaded != nullptr);
    auto* restored = capability<IPluginV3OneRuntime>(*loaded, PluginCapabilityType::kRUNTIME);
    std::unique_ptr<IPluginV3> const cloned(plugin->clone()), attached(runtime->attachToContext(nullptr));
    PluginFieldCollection const* again[] = {
        restored->getFieldsToSerialize(),
        capability<IPluginV3OneRuntime>(*cloned, PluginCapabilityType::kRUNTIME)->getFieldsToSerialize(),
        capability<IPluginV3OneRuntime>(*attached, PluginCapabilityType::kRUNTIME)->getFieldsToSerialize()};
    for (PluginFieldCollection const* fields : again) {
        std::printf("saved %d %d %g\n", *static_cast<int32_t const*>(fields->fields[0].data),
                    *static_cast<int32_t const*>(fields->fields[1].data),
                    static_cast<double>(*static_cast<float const*>(fields->fields[2].data)));
    }

    auto const rap = descriptions(2816, 352, 352, 1536);
    alignas(16) static char memory[16];
    void const* const addresses[5] = {memory, memory, memory, memory, memory};
    void* const result[1] = {memory};
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        say("enqueue.without_gpu", runtime->enqueue(rap.data(), &rap[5], addresses, result, nullptr, nullptr));
    }
}

} // namespace

int main(int argc, char** argv) {
    void* const nvinfer = argc == 3 ? dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) : nullptr;
    if (nvinfer == nullptr) {
        std::fprintf(stderr, "usage: exercise LIBNVINFER PLUGIN (%s)\n", argc == 3 ? dlerror() : "two files");
        return 2;
    }
    auto* const get = reinterpret_cast<IPluginRegistry* (*)()>(dlsym(nvinfer, "getPluginRegistry"));
    IPluginRegistry* const registry = get();
    IPluginRegistry::PluginLibraryHandle const handle = registry->loadLibrary(argv[2]);
    say("loaded", handle != nullptr);
    IPluginCreatorInterface* const creator = registry->getCreator("HybridAttention", "1", "");
    say("found", creator != nullptr);
    if (creator == nullptr) {
        return 1;
    }
    std::printf("kind %s\n", creator->getInterfaceInfo().kind);
    exercise(static_cast<IPluginCreatorV3One&>(*creator));
    registry->deregisterLibrary(handle);
    say("found_after_unloading", registry->getCreator("HybridAttention", "1", "") != nullptr);
    return 0;
}
