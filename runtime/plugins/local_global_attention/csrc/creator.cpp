#include "creator.hpp"

#include "kernels.hpp"
#include "log.hpp"
#include "plugin.hpp"

#include <cmath>
#include <cstring>
#include <exception>
#include <string>

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

namespace prunus {
namespace {

std::string textOf(PluginField const& field) {
    auto const* start = static_cast<char const*>(field.data);
    size_t const length = field.length > 0 ? static_cast<size_t>(field.length) : std::strlen(start);
    std::string text(start, length);
    return text.substr(0, text.find('\0'));
}

template <typename Number>
bool numberOf(PluginField const& field, Number& out) {
    switch (field.type) {
    case PluginFieldType::kINT32: out = static_cast<Number>(*static_cast<int32_t const*>(field.data)); break;
    case PluginFieldType::kINT64: out = static_cast<Number>(*static_cast<int64_t const*>(field.data)); break;
    case PluginFieldType::kFLOAT32: out = static_cast<Number>(*static_cast<float const*>(field.data)); break;
    case PluginFieldType::kFLOAT64: out = static_cast<Number>(*static_cast<double const*>(field.data)); break;
    default: return false;
    }
    return true;
}

// Fills `attributes`; returns what is missing or wrong.
std::string read(nvinfer1::PluginFieldCollection const& collection, Attributes& attributes) {
    bool heads = false, scale = false, combine = false;
    for (int32_t i = 0; i < collection.nbFields; ++i) {
        PluginField const& field = collection.fields[i];
        std::string const name = field.name != nullptr ? field.name : "";
        if (field.data == nullptr || field.length == 0) {
            continue;  // the attribute is absent from the node
        }
        int32_t code = -1;
        std::string problem;
        if (name == "num_heads") {
            heads = numberOf(field, attributes.numHeads);
        } else if (name == "scale") {
            scale = numberOf(field, attributes.scale);
        } else if (name == "combine") {
            combine = field.type == PluginFieldType::kCHAR
                && parse(textOf(field), attributes.combine, problem);
        } else if (name == "combine_code") {
            combine = numberOf(field, code) && code >= 0 && code <= 3;
            attributes.combine = static_cast<Combine>(combine ? code : 0);
        } else if (name == "library" && textOf(field) != kIdentity) {
            problem = "the engine was built with the plugin library " + textOf(field)
                + ", this one is " + kIdentity + "; build the engine again, or load that library";
        }
        if (!problem.empty()) {
            return problem;
        }
    }
    if (!heads || attributes.numHeads < 1) {
        return "attribute num_heads is missing or not a positive number";
    }
    if (!scale || !std::isfinite(attributes.scale)) {
        return "attribute scale is missing or not a finite number";
    }
    return combine ? std::string() : "attribute combine is missing";
}

}  // namespace

Creator::Creator(char const* name)
    : name_(name), fields_{{"num_heads", nullptr, PluginFieldType::kINT32, 1},
        {"scale", nullptr, PluginFieldType::kFLOAT32, 1},
        {"combine", nullptr, PluginFieldType::kCHAR, 0}} {
    names_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

nvinfer1::IPluginV3* Creator::createPlugin(char const* name,
    nvinfer1::PluginFieldCollection const* fields, nvinfer1::TensorRTPhase) noexcept {
    try {
        Attributes attributes;
        attributes.name = name_;
        attributes.layer = name != nullptr ? name : "";
        std::string const problem = fields != nullptr ? read(*fields, attributes) : "no attributes";
        if (!problem.empty()) {
            logError(attributes.layer, problem);
            return nullptr;
        }
        return new Plugin(attributes);
    } catch (std::exception const&) {
        return nullptr;
    }
}

char const* Creator::getPluginName() const noexcept {
    return name_;
}

char const* Creator::getPluginVersion() const noexcept {
    return kVersion;
}

char const* Creator::getPluginNamespace() const noexcept {
    return kNamespace;
}

}  // namespace prunus
