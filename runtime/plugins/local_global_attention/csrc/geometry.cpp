// The same rules as geometry.py: that file serves tests and measurements, this one TensorRT.
#include "geometry.hpp"

#include <cstddef>
#include <limits>

namespace prunus {
namespace {

std::string text(Shape const& shape) {
    std::string out = "(";
    for (size_t i = 0; i < shape.size(); ++i) {
        out += (i ? ", " : "") + std::to_string(shape[i]);
    }
    return out + ")";
}

// Collects the first complaint; later checks are skipped once there is one.
struct Checker {
    std::array<Shape, kInputs> const& shapes;
    std::string problem;

    // A shape that equals `wanted`, where 0 stands for any positive size.
    bool shape(Input input, Shape const& wanted) {
        Shape const& got = shapes[input];
        bool fits = problem.empty() && got.size() == wanted.size();
        for (size_t i = 0; fits && i < got.size(); ++i) {
            fits = got[i] > 0 && (wanted[i] == 0 || got[i] == wanted[i]);
        }
        if (!fits && problem.empty()) {
            problem = std::string(kInputNames[input]) + " has shape " + text(got) + "; expected "
                + text(wanted) + " (0: any size)";
        }
        return fits;
    }

    // Strides of a tensor that broadcasts to `full`; all ones may lack an axis.
    bool broadcast(Input input, Shape const& full, int64_t* strides, size_t count) {
        if (!problem.empty()) {
            return false;
        }
        Shape got = shapes[input];
        bool ones = true;
        for (int64_t n : got) {
            ones = ones && n == 1;
        }
        if (ones && got.size() + 1 == full.size()) {
            got.insert(got.begin(), 1);
        }
        bool fits = got.size() == full.size();
        for (size_t i = 0; fits && i < full.size(); ++i) {
            fits = got[i] == 1 || got[i] == full[i];
        }
        if (!fits) {
            problem = std::string(kInputNames[input]) + " has shape " + text(shapes[input])
                + "; expected one that broadcasts to " + text(full);
            return false;
        }
        int64_t step = 1;
        for (size_t i = full.size(); i-- > 0;) {
            if (i < count) {
                strides[i] = got[i] == 1 ? 0 : step;
            }
            step *= got[i];
        }
        return true;
    }
};

}  // namespace

bool reads(Combine combine, int32_t input) {
    switch (input) {
    case kK:
    case kV:
    case kKvIndex:
    case kBiasL: return combine != Combine::kGlobal;
    case kKg:
    case kVg:
    case kBiasG: return combine != Combine::kLocal;
    case kGate: return combine == Combine::kSum;
    case kOIndex: return false;
    default: return true;
    }
}

bool parse(std::string const& word, Combine& combine, std::string& problem) {
    constexpr char const* kWords[] = {"joint", "sum", "local", "global"};
    for (int32_t i = 0; i < 4; ++i) {
        if (word == kWords[i]) {
            combine = static_cast<Combine>(i);
            return true;
        }
    }
    problem = "attribute combine is '" + word + "'; expected joint, sum, local or global";
    return false;
}

std::string Geometry::set(
    std::array<Shape, kInputs> const& shapes, int64_t headCount, Combine combine) {
    *this = Geometry{};
    Checker check{shapes, {}};
    if (!check.shape(kQ, {0, 0, 0}) || !check.shape(kQIndex, {0, 0})) {
        return check.problem;
    }
    int64_t const channels = shapes[kQ][2];
    batch = shapes[kQ][0];
    queryTokens = shapes[kQ][1];
    windows = shapes[kQIndex][0];
    queries = shapes[kQIndex][1];
    heads = headCount;
    if (heads < 1 || channels % heads != 0) {
        return std::to_string(heads) + " heads do not divide " + std::to_string(channels)
            + " channels";
    }
    headDim = channels / heads;
    if (headDim < kMinHeadDim || headDim > kMaxHeadDim) {
        return "the head dimension is " + std::to_string(headDim) + "; the kernels take "
            + std::to_string(kMinHeadDim) + " to " + std::to_string(kMaxHeadDim);
    }
    if (windows * queries != queryTokens) {
        return "q_index has " + std::to_string(windows) + " x " + std::to_string(queries)
            + " positions for " + std::to_string(queryTokens)
            + " queries; expected every query exactly once";
    }
    if (reads(combine, kK) && check.shape(kK, {batch, 0, channels})) {
        keyTokens = shapes[kK][1];
        check.shape(kV, {batch, keyTokens, channels});
        if (check.shape(kKvIndex, {windows, 0})) {
            keys = shapes[kKvIndex][1];
            check.broadcast(kBiasL, {windows, heads, queries, keys}, &strides[0], 4);
        }
    }
    if (reads(combine, kKg) && check.problem.empty()) {
        bool const many = shapes[kKg].size() == 4 && shapes[kKg][1] == windows;
        int64_t const sets = many ? windows : 1;
        if (check.shape(kKg, {batch, sets, 0, channels})) {
            globals = shapes[kKg][2];
            check.shape(kVg, {batch, sets, globals, channels});
            strides[13] = sets * globals * channels;
            strides[14] = sets > 1 ? globals * channels : 0;
            check.broadcast(kBiasG, {batch, windows, heads, queries, globals}, &strides[4], 5);
        }
    }
    if (reads(combine, kGate)) {
        separate = 1;
        check.broadcast(kGate, {batch, windows, heads, queries, 1}, &strides[9], 4);
    }
    for (int64_t total : {queryTokens * channels, keyTokens * channels, strides[13],
             windows * heads * queries * (keys > globals ? keys : globals) * batch}) {
        if (total > std::numeric_limits<int32_t>::max()) {
            return "a tensor has more elements than the kernel counts (2^31)";
        }
    }
    return check.problem;
}

std::array<int32_t, kIntegers> Geometry::integers(int32_t indexWords) const {
    std::array<int32_t, kIntegers> out{};
    int64_t const leading[] = {separate, queries, keys, globals, queryTokens, keyTokens, heads,
        headDim, heads * headDim, indexWords};
    size_t at = 0;
    for (int64_t value : leading) {
        out[at++] = static_cast<int32_t>(value);
    }
    for (int64_t value : strides) {
        out[at++] = static_cast<int32_t>(value);
    }
    return out;
}

}  // namespace prunus
