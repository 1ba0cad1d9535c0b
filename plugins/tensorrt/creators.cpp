// The two functions that TensorRT looks for when it loads a plugin library.
#include "hybrid_attention_plugin.h"

#include "rap_hybrid_attention.h"

#include <atomic>

namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

} // namespace

namespace rap {

void log_error(char const* message) noexcept {
    nvinfer1::ILoggerFinder* finder = logger_finder.load();
    nvinfer1::ILogger* logger = finder == nullptr ? nullptr : finder->findLogger();
    if (logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, message);
    }
}

} // namespace rap

extern "C" RAP_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static rap::HybridAttentionCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    count = 1;
    return creators;
}

extern "C" RAP_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { logger_finder.store(finder); }
