#include "plugin.hpp"

#include "log.hpp"

#include <array>
#include <exception>

using nvinfer1::DataType;
using nvinfer1::PluginFieldType;

namespace prunus {
namespace {

constexpr uintptr_t kAlignment = 16;
constexpr int64_t kVector = 8;
constexpr std::array<Input, 5> kActivations = {kQ, kK, kV, kKg, kVg};

bool typeOf(DataType type, Type& out) {
    switch (type) {
    case DataType::kHALF: out = Type::kHalf; return true;
    case DataType::kBF16: out = Type::kBFloat16; return true;
    case DataType::kFLOAT: out = Type::kFloat; return true;
    default: return false;
    }
}

bool isTable(int32_t input) {
    return input == kQIndex || input == kKvIndex || input == kOIndex;
}

Shape shapeOf(nvinfer1::Dims const& dims) {
    return Shape(dims.d, dims.d + (dims.nbDims > 0 ? dims.nbDims : 0));
}

bool isAligned(void const* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % kAlignment == 0;
}

}  // namespace

int32_t Plugin::refuse(std::string const& problem) const noexcept {
    if (problem.empty()) {
        return 0;
    }
    try {
        logError(attributes_.layer, problem);
    } catch (std::exception const&) {
        // Nothing more can be said.
    }
    return -1;
}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
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

nvinfer1::IPluginV3* Plugin::clone() noexcept {
    try {
        auto* copy = new Plugin(attributes_);
        copy->geometry_ = geometry_;
        copy->type_ = type_;
        copy->indexWords_ = indexWords_;
        copy->fast_ = fast_;
        copy->general_ = general_;
        return copy;
    } catch (std::exception const& error) {
        refuse(error.what());
        return nullptr;
    }
}

int32_t Plugin::getOutputDataTypes(DataType* outputTypes, int32_t nbOutputs,
    DataType const* inputTypes, int32_t nbInputs) const noexcept {
    if (nbInputs != kInputs || nbOutputs != 1) {
        return refuse("the node has another number of inputs or outputs than 11 and 1");
    }
    outputTypes[0] = inputTypes[kQ];
    return 0;
}

int32_t Plugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
    nvinfer1::DimsExprs const*, int32_t, nvinfer1::DimsExprs* outputs, int32_t nbOutputs,
    nvinfer1::IExprBuilder&) noexcept {
    if (nbInputs != kInputs || nbOutputs != 1) {
        return refuse("the node has another number of inputs or outputs than 11 and 1");
    }
    outputs[0] = inputs[kQ];
    return 0;
}

bool Plugin::supportsFormatCombination(int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut,
    int32_t nbInputs, int32_t nbOutputs) noexcept {
    if (nbInputs != kInputs || nbOutputs != 1 || pos < 0 || pos > kInputs) {
        return false;
    }
    nvinfer1::PluginTensorDesc const& desc = inOut[pos].desc;
    if (desc.format != nvinfer1::TensorFormat::kLINEAR) {
        return false;
    }
    Type type{};
    bool const whole = desc.type == DataType::kINT32 || desc.type == DataType::kINT64;
    if (isTable(pos)) {
        bool const same = pos != kKvIndex || !reads(attributes_.combine, pos)
            || desc.type == inOut[kQIndex].desc.type;
        return whole && same;
    }
    if (pos == kQ) {
        return typeOf(desc.type, type);
    }
    bool const read = pos == kInputs || reads(attributes_.combine, pos);
    return read ? desc.type == inOut[kQ].desc.type : typeOf(desc.type, type) || whole;
}

int32_t Plugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t nbInputs,
    nvinfer1::DynamicPluginTensorDesc const*, int32_t) noexcept {
    try {
        std::vector<nvinfer1::PluginTensorDesc> descs;
        for (int32_t i = 0; i < nbInputs; ++i) {
            for (int32_t k = 0; k < in[i].desc.dims.nbDims; ++k) {
                if (in[i].desc.dims.d[k] < 0) {
                    return refuse(std::string("an input has a dynamic dimension")
                        + (i < kInputs ? std::string(": ") + kInputNames[i] : "")
                        + "; every shape must be a constant");
                }
            }
            descs.push_back(in[i].desc);
        }
        return refuse(take(descs.data(), nbInputs));
    } catch (std::exception const& error) {
        return refuse(error.what());
    }
}

std::string Plugin::take(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs) {
    if (nbInputs != kInputs) {
        return "the node has " + std::to_string(nbInputs) + " inputs; expected 11";
    }
    if (!typeOf(in[kQ].type, type_)) {
        return "q must be float16, bfloat16 or float32";
    }
    indexWords_ = in[kQIndex].type == DataType::kINT64 ? 2 : 1;
    std::array<Shape, kInputs> shapes;
    for (int32_t i = 0; i < kInputs; ++i) {
        shapes[i] = shapeOf(in[i].dims);
    }
    return geometry_.set(shapes, attributes_.numHeads, attributes_.combine);
}

int32_t Plugin::onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs,
    nvinfer1::PluginTensorDesc const*, int32_t) noexcept {
    try {
        std::string problem = take(in, nbInputs);
        int32_t const device = problem.empty() ? currentDevice(problem) : 0;
        if (!problem.empty()) {
            return refuse(problem);
        }
        int64_t const keys = geometry_.keys + geometry_.globals;
        bool const vectors = geometry_.headDim % kVector == 0;
        KernelImage const* images[2] = {};
        for (int32_t aligned : {0, 1}) {
            images[aligned] = choose(device, type_, geometry_.queries, keys, geometry_.headDim,
                aligned == 1 && vectors, problem);
            if (images[aligned] == nullptr) {
                return refuse(problem);
            }
        }
        general_ = LoadedKernel::load(*images[0], problem);
        fast_ = images[1] == images[0] ? general_ : LoadedKernel::load(*images[1], problem);
        return refuse(problem);
    } catch (std::exception const& error) {
        return refuse(error.what());
    }
}

int32_t Plugin::enqueue(nvinfer1::PluginTensorDesc const*, nvinfer1::PluginTensorDesc const*,
    void const* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept {
    try {
        if (fast_ == nullptr || general_ == nullptr) {
            return refuse("enqueue was called before the shapes were given");
        }
        std::array<void const*, kGate + 2> pointers{};
        for (int32_t i = 0; i <= kGate; ++i) {
            pointers[i] = inputs[i];
        }
        pointers[kGate + 1] = outputs[0];
        bool aligned = isAligned(outputs[0]);
        for (Input input : kActivations) {
            aligned = aligned && (!reads(attributes_.combine, input) || isAligned(inputs[input]));
        }
        constexpr float kLog2E = 1.44269504088896340736F;
        return refuse((aligned ? fast_ : general_)
                ->launch(stream, pointers.data(), attributes_.scale * kLog2E, geometry_,
                    indexWords_));
    } catch (std::exception const& error) {
        return refuse(error.what());
    }
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
    return clone();
}

nvinfer1::PluginFieldCollection const* Plugin::getFieldsToSerialize() noexcept {
    try {
        std::string const identity = kIdentity;
        fields_ = {
            {"num_heads", &attributes_.numHeads, PluginFieldType::kINT32, 1},
            {"scale", &attributes_.scale, PluginFieldType::kFLOAT32, 1},
            {"combine_code", &attributes_.combine, PluginFieldType::kINT32, 1},
            // With the closing zero, so that it can be read back as it stands.
            {"library", kIdentity, PluginFieldType::kCHAR, static_cast<int32_t>(identity.size() + 1)},
        };
    } catch (std::exception const& error) {
        refuse(error.what());
        return nullptr;
    }
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    return &collection_;
}

}  // namespace prunus
