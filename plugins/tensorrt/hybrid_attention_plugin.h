// `rap::HybridAttention` as a TensorRT plugin (IPluginV3): name "HybridAttention", version "1", no namespace, which is
// what TensorRT's ONNX parser looks for when it meets the node without a definition.
//
// Inputs query, key, value, full_key, full_value: [B, tokens, num_heads * d], fp16 or bf16, d 64 or 128. Output: as
// query. Attributes num_heads and frames (int32) and alpha (float32).
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <vector>

namespace rap {

constexpr char const* kPluginName = "HybridAttention";
constexpr char const* kPluginVersion = "1";
constexpr char const* kPluginNamespace = "";

struct Attributes {
    int32_t num_heads;
    int32_t frames;
    float alpha;
};

class HybridAttentionPlugin : public nvinfer1::IPluginV3,
                              public nvinfer1::IPluginV3OneCore,
                              public nvinfer1::IPluginV3OneBuild,
                              public nvinfer1::IPluginV3OneRuntime {
  public:
    explicit HybridAttentionPlugin(const Attributes& attributes);

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    char const* getPluginName() const noexcept override { return kPluginName; }
    char const* getPluginVersion() const noexcept override { return kPluginVersion; }
    char const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t inputs,
                            nvinfer1::DynamicPluginTensorDesc const* out, int32_t outputs) noexcept override;
    int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t outputs, nvinfer1::DataType const* input_types,
                               int32_t inputs) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* in, int32_t inputs, nvinfer1::DimsExprs const* shape_inputs,
                            int32_t shape_input_count, nvinfer1::DimsExprs* out, int32_t outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* in_out, int32_t inputs,
                                   int32_t outputs) noexcept override;

    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t inputs, nvinfer1::PluginTensorDesc const* out,
                          int32_t outputs) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const* output_descs,
                    void const* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

  private:
    Attributes attributes_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

class HybridAttentionCreator : public nvinfer1::IPluginCreatorV3One {
  public:
    HybridAttentionCreator();

    nvinfer1::IPluginV3* createPlugin(char const* name, nvinfer1::PluginFieldCollection const* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }
    char const* getPluginName() const noexcept override { return kPluginName; }
    char const* getPluginVersion() const noexcept override { return kPluginVersion; }
    char const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

  private:
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

// Say one sentence through TensorRT's logger, if there is one.
void log_error(char const* message) noexcept;

} // namespace rap
