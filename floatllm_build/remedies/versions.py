"""Tools that work but do not fit: too old for the source or the processor, or too new for another tool."""

from __future__ import annotations

from floatllm_build.remedies.sign import QUOTED, Remedy, Sign

VERSIONS = (
    Remedy(
        "host-compiler",
        (
            Sign("-- unsupported GNU version!"),
            Sign("-- unsupported clang version!"),
            Sign("-- unsupported Microsoft Visual Studio version!"),
        ),
        "the C++ compiler is newer than this CUDA toolkit allows",
        "install an older one beside it (Debian: apt install g++-12) and set CUDAHOSTCXX to it, or a newer "
        "CUDA",
    ),
    Remedy(
        "libc-too-new",
        (
            Sign(
                "exception specification is incompatible",
                r"error: exception specification is incompatible with that of previous function "
                r"['\"](?:cospi|sinpi|rsqrt)f?['\"]",
            ),
        ),
        "this CUDA toolkit does not know the functions that glibc 2.41 and later declare",
        "install CUDA 13 or newer, or build without it: floatllm-build install --backend vulkan",
    ),
    Remedy(
        "gpu-architecture",
        (
            Sign("nsupported gpu architecture", rf"[Uu]nsupported gpu architecture {QUOTED}"),
            Sign(
                "is not defined for option",
                rf"nvcc fatal +: Value {QUOTED}.{{0,9}} is not defined for option",
            ),
            Sign("invalid target ID", rf"error: invalid target ID {QUOTED}"),
            Sign("unsupported HIP gpu architecture", r"unsupported HIP gpu architecture: (?P<what>\w{1,40})"),
        ),
        "the GPU toolkit that was found cannot compile for {what}",
        "install a toolkit that can (nvcc --list-gpu-arch lists what one can; CUDA 13 dropped what is older "
        "than compute_75), or build without it: floatllm-build install --backend vulkan",
    ),
    Remedy(
        "processor-option",
        (
            Sign("bad value", rf"error: bad value \(?{QUOTED}.{{0,9}} for ['\u2018]-m"),
            Sign("unknown target CPU", rf"error: unknown target CPU {QUOTED}"),
            Sign(
                "unsupported argument",
                rf"error: unsupported argument {QUOTED}.{{0,9}} to option ['\u2018]-m",
            ),
            Sign(
                "unrecognized command",
                r"error: unrecognized command[- ]line option ['\"\u2018](?P<what>-m[^'\"\u2019]{1,80})",
            ),
            Sign("unknown argument", r"error: unknown argument: ['\"](?P<what>-m[^'\"]{1,80})"),
            Sign("no such instruction", r": Error: no such instruction: .(?P<what>\w{1,40})"),
            Sign("unknown mnemonic", r": Error: unknown mnemonic .(?P<what>\w{1,40})"),
        ),
        "the compiler or assembler is too old for {what}, which this processor's kernels use",
        "install a newer compiler (and binutils), or build for any processor: floatllm-build install "
        "--preset wheel-cpu",
    ),
    Remedy(
        "vulkan-headers",
        (
            Sign(
                "is not a member of",
                rf"error: {QUOTED}['\"\u2019] is not a member of ['\"\u2018]vk['\":\u2019]",
            ),
            Sign(
                "in namespace 'vk'", rf"error: no (?:member|type|template) named {QUOTED}' in namespace 'vk'"
            ),
            Sign("VK_", r"error: ['\"\u2018](?P<what>VK_\w{1,120})['\"\u2019] was not declared"),
            Sign("VK_", r"error: use of undeclared identifier '(?P<what>VK_\w{1,120})'"),
            Sign("C2039", r"error C2039: '(?P<what>[^']{1,120})': is not a member of 'vk'"),
        ),
        "Vulkan's headers are too old for ggml: they lack {what}",
        "install newer ones (Debian 13's work), or unpack a Vulkan SDK and set VULKAN_SDK to it; without it: "
        "floatllm-build install --backend cpu",
    ),
    Remedy(
        "spawn-h",
        (
            Sign("spawn.h", r"fatal error: '?spawn\.h'?(?: file not found|: No such file or directory)$"),
            Sign(
                "posix_spawn",
                r"error: .{0,60}\bposix_spawn\w{0,40}.{0,10} (?:is unavailable|was not declared)",
            ),
            Sign("posix_spawn", r"error: (?:use of undeclared identifier|undefined symbol:?) '?posix_spawn"),
            Sign("posix_spawn", r"undefined reference to .posix_spawn"),
        ),
        "this Android has no posix_spawn: it came with API level 28, and Termux builds for 24",
        "pkg install libandroid-spawn, or build without Vulkan: floatllm-build install --backend cpu",
    ),
    Remedy(
        "cmake-too-old",
        (Sign("or higher is required", r"^CMake (?P<what>[\d.]{1,20}) or higher is required"),),
        "this CMake is too old: {what} or newer is needed",
        "python -m pip install --upgrade cmake (Termux: pkg upgrade cmake)",
    ),
)
