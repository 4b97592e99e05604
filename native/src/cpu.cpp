#include "cpu.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <vector>

#include "error.h"
#include "floatllm.h"

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#define FLOATLLM_X86
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace floatllm {

namespace {

#if defined(FLOATLLM_X86)

struct Registers {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero for a leaf that the processor does not have.
Registers cpuid(uint32_t leaf, uint32_t sub) {
    Registers got;
#if defined(_MSC_VER)
    int out[4];
    __cpuid(out, static_cast<int>(leaf & 0x80000000U));
    if (static_cast<uint32_t>(out[0]) >= leaf) {
        __cpuidex(out, static_cast<int>(leaf), static_cast<int>(sub));
        got = {static_cast<uint32_t>(out[0]), static_cast<uint32_t>(out[1]), static_cast<uint32_t>(out[2]),
               static_cast<uint32_t>(out[3])};
    }
#else
    __get_cpuid_count(leaf, sub, &got.eax, &got.ebx, &got.ecx, &got.edx);
#endif
    return got;
}

// Which registers the operating system keeps when it changes between threads; without that the processor
// refuses the instructions that use them.
uint64_t kept_registers() {
    constexpr uint32_t kOsxsave = 1U << 27;
    if ((cpuid(1, 0).ecx & kOsxsave) == 0) {
        return 0;
    }
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low = 0;
    uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
#endif
}

#if defined(__APPLE__)
// A Mac's kernel turns the rest of AVX-512's on where a thread first uses them.
constexpr uint64_t kKeptForAvx512 = 0x6;
#else
constexpr uint64_t kKeptForAvx512 = 0xe6;
#endif
enum State : uint64_t { kNone = 0, kAvx = 0x6, kAvx512 = kKeptForAvx512, kAmx = 0x60000 };

// Intel's manual, volume 2, CPUID.
struct Feature {
    const char *name;
    uint32_t leaf;
    uint32_t sub;
    uint32_t Registers::*reg;
    unsigned bit;
    State state;
};

constexpr uint32_t kExtended = 0x80000001U;
const Feature kFeatures[] = {
    {"sse3", 1, 0, &Registers::ecx, 0, kNone},
    {"ssse3", 1, 0, &Registers::ecx, 9, kNone},
    {"fma", 1, 0, &Registers::ecx, 12, kAvx},
    {"sse4_1", 1, 0, &Registers::ecx, 19, kNone},
    {"sse4_2", 1, 0, &Registers::ecx, 20, kNone},
    {"movbe", 1, 0, &Registers::ecx, 22, kNone},
    {"popcnt", 1, 0, &Registers::ecx, 23, kNone},
    {"avx", 1, 0, &Registers::ecx, 28, kAvx},
    {"f16c", 1, 0, &Registers::ecx, 29, kAvx},
    {"bmi", 7, 0, &Registers::ebx, 3, kNone},
    {"avx2", 7, 0, &Registers::ebx, 5, kAvx},
    {"bmi2", 7, 0, &Registers::ebx, 8, kNone},
    {"avx512f", 7, 0, &Registers::ebx, 16, kAvx512},
    {"avx512dq", 7, 0, &Registers::ebx, 17, kAvx512},
    {"adx", 7, 0, &Registers::ebx, 19, kNone},
    {"avx512ifma", 7, 0, &Registers::ebx, 21, kAvx512},
    {"avx512cd", 7, 0, &Registers::ebx, 28, kAvx512},
    {"avx512bw", 7, 0, &Registers::ebx, 30, kAvx512},
    {"avx512vl", 7, 0, &Registers::ebx, 31, kAvx512},
    {"avx512vbmi", 7, 0, &Registers::ecx, 1, kAvx512},
    {"avx512vbmi2", 7, 0, &Registers::ecx, 6, kAvx512},
    {"gfni", 7, 0, &Registers::ecx, 8, kNone},
    {"avx512vnni", 7, 0, &Registers::ecx, 11, kAvx512},
    {"avx512bitalg", 7, 0, &Registers::ecx, 12, kAvx512},
    {"avx512vpopcntdq", 7, 0, &Registers::ecx, 14, kAvx512},
    {"amx_bf16", 7, 0, &Registers::edx, 22, kAmx},
    {"avx512fp16", 7, 0, &Registers::edx, 23, kAvx512},
    {"amx_tile", 7, 0, &Registers::edx, 24, kAmx},
    {"amx_int8", 7, 0, &Registers::edx, 25, kAmx},
    {"avxvnni", 7, 1, &Registers::eax, 4, kAvx},
    {"avx512bf16", 7, 1, &Registers::eax, 5, kAvx512},
    {"lzcnt", kExtended, 0, &Registers::ecx, 5, kNone},
};

bool has(const std::string &name) {
    for (const Feature &feature : kFeatures) {
        if (name == feature.name) {
            return (cpuid(feature.leaf, feature.sub).*feature.reg >> feature.bit & 1) != 0 &&
                   (kept_registers() & feature.state) == feature.state;
        }
    }
    return true;
}

#elif defined(__aarch64__) && defined(__linux__)

// Of the kernel's interface, arch/arm64/include/uapi/asm/hwcap.h.
struct Feature {
    const char *name;
    unsigned long list;
    unsigned bit;
};

const Feature kFeatures[] = {
    {"lse", AT_HWCAP, 8},    {"fp16", AT_HWCAP, 10},    {"rdm", AT_HWCAP, 12},  {"rcpc", AT_HWCAP, 15},
    {"sve", AT_HWCAP, 22},   {"dotprod", AT_HWCAP, 20}, {"sve2", AT_HWCAP2, 1}, {"i8mm", AT_HWCAP2, 13},
    {"bf16", AT_HWCAP2, 14}, {"sme", AT_HWCAP2, 23},
};

bool has(const std::string &name) {
    for (const Feature &feature : kFeatures) {
        if (name == feature.name) {
            return (getauxval(feature.list) >> feature.bit & 1) != 0;
        }
    }
    return true;
}

#elif defined(__aarch64__) && defined(__APPLE__)

bool has(const std::string &name) {
    static const char *const names[][2] = {{"lse", "LSE"},    {"fp16", "FP16"},       {"rdm", "RDM"},
                                           {"rcpc", "LRCPC"}, {"dotprod", "DotProd"}, {"i8mm", "I8MM"},
                                           {"bf16", "BF16"},  {"sme", "SME"}};
    for (const auto &pair : names) {
        if (name == pair[0]) {
            int32_t value = 0;
            size_t size = sizeof value;
            const std::string key = std::string("hw.optional.arm.FEAT_") + pair[1];
            return sysctlbyname(key.c_str(), &value, &size, nullptr, 0) == 0 && value != 0;
        }
    }
    return true;
}

#else

// Nobody to ask: what the engine was compiled for is taken to be here.
bool has(const std::string &) { return true; }

#endif

}  // namespace

std::string cpu_name() {
#if defined(FLOATLLM_X86)
    constexpr uint32_t kFirst = 0x80000002U;
    char text[49] = "";
    for (uint32_t part = 0; part < 3; ++part) {
        const Registers got = cpuid(kFirst + part, 0);
        const uint32_t words[] = {got.eax, got.ebx, got.ecx, got.edx};
        std::memcpy(text + part * sizeof words, words, sizeof words);
    }
    const std::string name = text;
    const size_t begin = name.find_first_not_of(' ');
    if (begin != std::string::npos) {
        return name.substr(begin, name.find_last_not_of(' ') - begin + 1);
    }
#endif
    return "this processor";
}

void require_cpu() {
    std::istringstream needs(FLOATLLM_CPU_NEEDS);
    std::vector<std::string> lacking;
    for (std::string need; needs >> need;) {
        if (!has(need)) {
            lacking.push_back(need);
        }
    }
    if (lacking.empty()) {
        return;
    }
    constexpr size_t kTold = 4;
    std::string names = lacking.front();
    for (size_t i = 1; i < std::min(lacking.size(), kTold); ++i) {
        names += (i + 1 == lacking.size() ? " and " : ", ") + lacking[i];
    }
    if (lacking.size() > kTold) {
        names += format(" and %zu more", lacking.size() - kTold);
    }
    throw Error(
        FLOATLLM_ERROR_MISSING,
        format("This engine was compiled for another processor: %s lacks %s. Build one here with "
               "`floatllm-build install`, or install the portable wheel, which runs on any processor.",
               cpu_name().c_str(), names.c_str()));
}

}  // namespace floatllm
