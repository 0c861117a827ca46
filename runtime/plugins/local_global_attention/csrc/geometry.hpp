// From the shapes of the operator's inputs to the integers that the kernel is launched with.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace prunus {

// Positions of the operator's inputs.
enum Input : int32_t {
    kQ, kK, kV, kQIndex, kKvIndex, kBiasL, kKg, kVg, kBiasG, kGate, kOIndex, kInputs
};

enum class Combine : int32_t { kJoint, kSum, kLocal, kGlobal };

constexpr char const* kInputNames[kInputs]
    = {"q", "k", "v", "q_index", "kv_index", "bias_l", "kg", "vg", "bias_g", "gate", "o_index"};
constexpr int32_t kMinHeadDim = 16;
constexpr int32_t kMaxHeadDim = 128;
constexpr int32_t kIntegers = 25;

using Shape = std::vector<int64_t>;

// Whether `combine` reads an input; the others may have any shape and type.
bool reads(Combine combine, int32_t input);

// False and a sentence in `problem` if the word is none of the four.
bool parse(std::string const& word, Combine& combine, std::string& problem);

struct Geometry {
    int64_t batch = 0, windows = 0, queries = 0, keys = 0, globals = 0;
    int64_t queryTokens = 0, keyTokens = 0, heads = 0, headDim = 0, separate = 0;
    // bias_l by window, head, query, key; bias_g by batch, window, head, query, key; gate by batch,
    // window, head, query; kg and vg by batch, window. In elements, 0 where broadcast.
    std::array<int64_t, 15> strides{};

    // Checks all shapes that are read. Returns an empty string, or what is wrong with which input.
    std::string set(std::array<Shape, kInputs> const& shapes, int64_t heads, Combine combine);

    // The kernel's integer arguments; `indexWords` is 1 for int32 tables, 2 for int64.
    std::array<int32_t, kIntegers> integers(int32_t indexWords) const;
};

}  // namespace prunus
