// The operator as a TensorRT plugin (IPluginV3): static shapes, linear layout, one output.
#pragma once

#include "geometry.hpp"
#include "kernels.hpp"

#include <NvInferRuntime.h>
#include <memory>
#include <string>
#include <vector>

namespace prunus {

// A graph that mixes combinations needs a name for each function body (importers tell bodies apart by
// name alone); what is computed is said by the attribute `combine`, whatever the name.
constexpr char const* kNames[] = {"LocalGlobalAttention", "LocalGlobalAttentionSum",
    "LocalGlobalAttentionLocal", "LocalGlobalAttentionGlobal"};
constexpr char const* kVersion = "1";
constexpr char const* kNamespace = "prunus";

// The node's attributes; names as in ONNX.
struct Attributes {
    char const* name = kNames[0];  // one of kNames
    std::string layer;  // name of the node, for messages; not serialised
    int32_t numHeads = 0;
    float scale = 0.0F;
    Combine combine = Combine::kJoint;
};

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
public:
    explicit Plugin(Attributes attributes) : attributes_(std::move(attributes)) {}

    nvinfer1::IPluginCapability* getCapabilityInterface(
        nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    char const* getPluginName() const noexcept override { return attributes_.name; }
    char const* getPluginVersion() const noexcept override { return kVersion; }
    char const* getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t getOutputDataTypes(nvinfer1::DataType* outputTypes, int32_t nbOutputs,
        nvinfer1::DataType const* inputTypes, int32_t nbInputs) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
        nvinfer1::DimsExprs const* shapeInputs, int32_t nbShapeInputs, nvinfer1::DimsExprs* outputs,
        int32_t nbOutputs, nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut,
        int32_t nbInputs, int32_t nbOutputs) noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t nbInputs,
        nvinfer1::DynamicPluginTensorDesc const* out, int32_t nbOutputs) noexcept override;
    char const* getMetadataString() noexcept override { return kIdentity; }

    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs,
        nvinfer1::PluginTensorDesc const* out, int32_t nbOutputs) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDesc,
        nvinfer1::PluginTensorDesc const* outputDesc, void const* const* inputs,
        void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(
        nvinfer1::IPluginResourceContext* context) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    int32_t refuse(std::string const& problem) const noexcept;
    std::string take(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs);

    Attributes attributes_;
    Geometry geometry_;
    Type type_ = Type::kFloat;
    int32_t indexWords_ = 1;
    // For 16-byte aligned tensors, and for any; loaded when the shapes are known, since nothing may
    // be loaded while a CUDA graph is recorded.
    std::shared_ptr<LoadedKernel> fast_, general_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace prunus
