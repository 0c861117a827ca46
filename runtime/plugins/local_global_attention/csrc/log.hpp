// Messages through TensorRT's logger, or to stderr before TensorRT has given one.
#pragma once

#include <NvInferRuntime.h>
#include <string>

namespace prunus {

void setFinder(nvinfer1::ILoggerFinder* finder);

// Logs "LocalGlobalAttention <layer>: <text>" as an error.
void logError(std::string const& layer, std::string const& text);

}  // namespace prunus
