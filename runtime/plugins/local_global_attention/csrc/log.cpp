#include "log.hpp"

#include <atomic>
#include <iostream>

namespace prunus {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> gFinder{nullptr};

}  // namespace

void setFinder(nvinfer1::ILoggerFinder* finder) {
    gFinder = finder;
}

void logError(std::string const& layer, std::string const& text) {
    std::string const line
        = "LocalGlobalAttention" + (layer.empty() ? "" : " '" + layer + "'") + ": " + text;
    nvinfer1::ILoggerFinder* finder = gFinder;
    nvinfer1::ILogger* logger = finder != nullptr ? finder->findLogger() : nullptr;
    if (logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, line.c_str());
    } else {
        std::cerr << line << '\n';
    }
}

}  // namespace prunus
