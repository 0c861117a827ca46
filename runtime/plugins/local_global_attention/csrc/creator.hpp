// Makes the plugin from the attributes of a node, or from what an engine has stored.
#pragma once

#include <NvInferRuntime.h>
#include <vector>

namespace prunus {

class Creator final : public nvinfer1::IPluginCreatorV3One {
public:
    // `name` is one of the plugin's names and lives as long as the library.
    explicit Creator(char const* name);

    nvinfer1::IPluginV3* createPlugin(char const* name, nvinfer1::PluginFieldCollection const* fields,
        nvinfer1::TensorRTPhase phase) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &names_; }
    char const* getPluginName() const noexcept override;
    char const* getPluginVersion() const noexcept override;
    char const* getPluginNamespace() const noexcept override;

private:
    char const* name_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection names_{};
};

}  // namespace prunus
