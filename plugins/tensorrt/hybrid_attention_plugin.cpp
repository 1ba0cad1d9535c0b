#include "hybrid_attention_plugin.h"

#include "rap_hybrid_attention.h"

#include <cstring>
#include <new>

namespace rap {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

constexpr int32_t kInputs = 5; // query, key, value, full_key, full_value
constexpr int32_t kFailure = 1;

int32_t refuse(char const* message) noexcept {
    log_error(message);
    return kFailure;
}

// The call's parameters without addresses, or the sentence that says why the shapes cannot be run.
char const* describe(const Attributes& attributes, Dims const* const (&dims)[kInputs], DataType type,
                     rap_hybrid_attention_params* params) noexcept {
    for (Dims const* shape : dims) {
        if (shape->nbDims != 3 || shape->d[0] != dims[0]->d[0] || shape->d[2] != dims[0]->d[2]) {
            return "HybridAttention takes five tensors [B, tokens, heads * d] of one B and one width.";
        }
        for (int i = 0; i < 3; ++i) {
            if (shape->d[i] < 1 || shape->d[i] > INT32_MAX) {
                return "HybridAttention cannot run on an empty tensor or one with 2^31 tokens or more.";
            }
        }
    }
    const int64_t query_rows = dims[0]->d[1], key_rows = dims[1]->d[1], full_rows = dims[3]->d[1];
    const int64_t width = dims[0]->d[2];
    if (dims[2]->d[1] != key_rows || dims[4]->d[1] != full_rows) {
        return "HybridAttention needs as many values as keys in each branch.";
    }
    if (query_rows % attributes.frames != 0 || key_rows % attributes.frames != 0) {
        return "HybridAttention needs query and key tokens that divide into its frames.";
    }
    if (width % attributes.num_heads != 0) {
        return "HybridAttention needs a width that divides into its heads.";
    }
    *params = {};
    params->batch = static_cast<int32_t>(dims[0]->d[0]);
    params->heads = attributes.num_heads;
    params->head_dim = static_cast<int32_t>(width / attributes.num_heads);
    params->frames = attributes.frames;
    params->query_tokens = static_cast<int32_t>(query_rows / attributes.frames);
    params->key_tokens = static_cast<int32_t>(key_rows / attributes.frames);
    params->full_tokens = static_cast<int32_t>(full_rows);
    params->dtype = type == DataType::kHALF ? RAP_FLOAT16 : RAP_BFLOAT16;
    params->alpha = attributes.alpha;
    rap_tensor* const tensors[] = {&params->query,    &params->key,        &params->value,
                                   &params->full_key, &params->full_value, &params->output};
    const int64_t rows[] = {query_rows, key_rows, key_rows, full_rows, full_rows, query_rows};
    for (int i = 0; i < 6; ++i) {
        *tensors[i] = {nullptr, rows[i] * width, width};
    }
    return nullptr;
}

void set_addresses(rap_hybrid_attention_params* params, void const* const* inputs, void* output) noexcept {
    rap_tensor* const tensors[] = {&params->query, &params->key, &params->value, &params->full_key,
                                   &params->full_value};
    for (int i = 0; i < kInputs; ++i) {
        tensors[i]->data = const_cast<void*>(inputs[i]);
    }
    params->output.data = output;
}

template <class T> bool read(const PluginField& field, PluginFieldType type, T* value) noexcept {
    if (field.type != type || field.length != 1 || field.data == nullptr) {
        return false;
    }
    std::memcpy(value, field.data, sizeof(T));
    return true;
}

} // namespace

HybridAttentionPlugin::HybridAttentionPlugin(const Attributes& attributes) : attributes_(attributes) {}

nvinfer1::IPluginCapability*
HybridAttentionPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

nvinfer1::IPluginV3* HybridAttentionPlugin::clone() noexcept {
    return new (std::nothrow) HybridAttentionPlugin(attributes_);
}

int32_t HybridAttentionPlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t inputs,
                                               nvinfer1::DynamicPluginTensorDesc const*, int32_t outputs) noexcept {
    if (inputs != kInputs || outputs != 1) {
        return refuse("HybridAttention takes five inputs and gives one output.");
    }
    // A width that is known while building must fit; free dimensions are checked when they get their values.
    const int64_t width = in[0].desc.dims.nbDims == 3 ? in[0].desc.dims.d[2] : -1;
    const int64_t head_dim = width % attributes_.num_heads == 0 ? width / attributes_.num_heads : 0;
    if (width > 0 && head_dim != 64 && head_dim != 128) {
        return refuse(rap_status_message(RAP_BAD_HEAD_DIM));
    }
    return 0;
}

int32_t HybridAttentionPlugin::getOutputDataTypes(DataType* types, int32_t outputs, DataType const* input_types,
                                                  int32_t inputs) const noexcept {
    if (inputs != kInputs || outputs != 1) {
        return kFailure;
    }
    types[0] = input_types[0];
    return 0;
}

int32_t HybridAttentionPlugin::getOutputShapes(nvinfer1::DimsExprs const* in, int32_t inputs,
                                               nvinfer1::DimsExprs const*, int32_t, nvinfer1::DimsExprs* out,
                                               int32_t outputs, nvinfer1::IExprBuilder&) noexcept {
    if (inputs != kInputs || outputs != 1 || in[0].nbDims != 3) {
        return refuse("HybridAttention takes five tensors [B, tokens, heads * d] and gives one.");
    }
    out[0] = in[0];
    return 0;
}

bool HybridAttentionPlugin::supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* in_out,
                                                      int32_t inputs, int32_t outputs) noexcept {
    if (inputs != kInputs || outputs != 1 || position < 0 || position >= inputs + outputs) {
        return false;
    }
    const nvinfer1::PluginTensorDesc& desc = in_out[position].desc;
    const DataType first = in_out[0].desc.type;
    return desc.format == nvinfer1::TensorFormat::kLINEAR && desc.type == first &&
           (first == DataType::kHALF || first == DataType::kBF16);
}

int32_t HybridAttentionPlugin::onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t inputs,
                                             nvinfer1::PluginTensorDesc const*, int32_t outputs) noexcept {
    if (inputs != kInputs || outputs != 1) {
        return refuse("HybridAttention takes five inputs and gives one output.");
    }
    rap_hybrid_attention_params params;
    Dims const* const dims[] = {&in[0].dims, &in[1].dims, &in[2].dims, &in[3].dims, &in[4].dims};
    if (char const* problem = describe(attributes_, dims, in[0].type, &params)) {
        return refuse(problem);
    }
    // The check wants addresses: any aligned ones, as none is read.
    alignas(16) static unsigned char somewhere[kInputs + 1][16];
    void const* addresses[kInputs];
    for (int i = 0; i < kInputs; ++i) {
        addresses[i] = somewhere[i];
    }
    set_addresses(&params, addresses, somewhere[kInputs]);
    const rap_status status = rap_hybrid_attention_check(&params);
    return status == RAP_OK ? 0 : refuse(rap_status_message(status));
}

int32_t HybridAttentionPlugin::enqueue(nvinfer1::PluginTensorDesc const* input_descs,
                                       nvinfer1::PluginTensorDesc const*, void const* const* inputs,
                                       void* const* outputs, void*, cudaStream_t stream) noexcept {
    rap_hybrid_attention_params params;
    Dims const* const dims[] = {&input_descs[0].dims, &input_descs[1].dims, &input_descs[2].dims, &input_descs[3].dims,
                                &input_descs[4].dims};
    if (char const* problem = describe(attributes_, dims, input_descs[0].type, &params)) {
        return refuse(problem);
    }
    // One tensor that feeds both branches arrives under one address, and then every score is computed once.
    set_addresses(&params, inputs, outputs[0]);
    const rap_status status = rap_hybrid_attention(&params, stream);
    return status == RAP_OK ? 0 : refuse(rap_status_message(status));
}

nvinfer1::IPluginV3* HybridAttentionPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
    return clone();
}

nvinfer1::PluginFieldCollection const* HybridAttentionPlugin::getFieldsToSerialize() noexcept {
    fields_ = {PluginField("num_heads", &attributes_.num_heads, PluginFieldType::kINT32, 1),
               PluginField("frames", &attributes_.frames, PluginFieldType::kINT32, 1),
               PluginField("alpha", &attributes_.alpha, PluginFieldType::kFLOAT32, 1)};
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    return &collection_;
}

HybridAttentionCreator::HybridAttentionCreator()
    : fields_{PluginField("num_heads", nullptr, PluginFieldType::kINT32, 1),
              PluginField("frames", nullptr, PluginFieldType::kINT32, 1),
              PluginField("alpha", nullptr, PluginFieldType::kFLOAT32, 1)},
      collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {}

nvinfer1::IPluginV3* HybridAttentionCreator::createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields,
                                                          nvinfer1::TensorRTPhase) noexcept {
    Attributes attributes{};
    bool found[3] = {};
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
        const PluginField& field = fields->fields[i];
        if (field.name == nullptr) {
            continue;
        }
        if (std::strcmp(field.name, "num_heads") == 0) {
            found[0] = read(field, PluginFieldType::kINT32, &attributes.num_heads);
        } else if (std::strcmp(field.name, "frames") == 0) {
            found[1] = read(field, PluginFieldType::kINT32, &attributes.frames);
        } else if (std::strcmp(field.name, "alpha") == 0) {
            found[2] = read(field, PluginFieldType::kFLOAT32, &attributes.alpha);
        }
    }
    const bool legal = found[0] && found[1] && found[2] && attributes.num_heads > 0 && attributes.frames > 0 &&
                       attributes.alpha >= 0.0f && attributes.alpha <= 1.0f;
    if (!legal) {
        log_error("HybridAttention needs num_heads and frames (int32, at least 1) and alpha (float32 in 0..1).");
        return nullptr;
    }
    return new (std::nothrow) HybridAttentionPlugin(attributes);
}

} // namespace rap
