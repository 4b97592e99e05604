"""What is missing or damaged: headers, libraries, packages, programs, and files of the build itself."""

from __future__ import annotations

from floatllm_build.remedies.sign import AGAIN, QUOTED, SHELL, Remedy, Sign

_VULKAN = (
    "Debian: apt install libvulkan-dev glslc spirv-headers; Fedora: dnf install vulkan-devel glslc "
    "spirv-headers-devel; Termux: pkg install vulkan-headers vulkan-loader-android shaderc spirv-headers; or "
    "unpack a Vulkan SDK and set VULKAN_SDK to it"
)
_CUDA = "install the CUDA toolkit whole (cudart, cublas and cccl with nvcc), or set CUDA_PATH to one that is"
_HIP = "install ROCm's HIP, hipBLAS and rocBLAS with their headers, or set ROCM_PATH to them"
# What belongs to which package, by the name of a header, a library or a CMake package.
_PACKAGES = (
    (r"^(?:vulkan|vk_|vk$|[Vv]ulkan-1|spirv|SPIRV|glslc)|[Vv]ulkan", _VULKAN),
    (r"^(?:cu(?:da|blas|rand|solver|sparse|b/)|CUDA|thrust/|nv/|nccl|crt/)", _CUDA),
    (r"^(?:hip|roc|amd_?comgr|hsa)", _HIP),
    (r"^ggml", "floatllm-build clean and floatllm-build fetch, then this again: ggml's source is not whole"),
    (
        r"^spawn\.h$",
        "pkg install libandroid-spawn, or build without Vulkan: floatllm-build install --backend cpu",
    ),
    (
        r"^(?:std\w+|string|assert|errno|math|time|unistd|pthread|features|(?:bits|sys|linux|asm)/.*)\.h$",
        (
            "install the C library's headers (Debian: apt install libc6-dev linux-libc-dev; Alpine: apk add "
            "musl-dev linux-headers; Termux: pkg install ndk-sysroot)"
        ),
    ),
    (
        r"^(?:[a-z_]+|c?std\w+|stdc\+\+|c\+\+|c\+\+abi)$",
        (
            "install the C++ library that belongs to the compiler (Debian: apt install g++; Fedora: dnf "
            "install gcc-c++; Termux: pkg install libc++ ndk-sysroot)"
        ),
    ),
    (r"^[Ww]indows\.h$|^(?:kernel32|ucrt\w*)\.lib$", "add a Windows SDK in the Visual Studio Installer"),
)

PIECES = (
    Remedy(
        "missing-header",
        (
            Sign(
                "fatal error: ",
                r":\d+: fatal error: '?(?P<what>[^:'\"]{1,200})"
                r"(?:' file not found|: No such file or directory)$",
            ),
            Sign("C1083", r"fatal error C1083: Cannot open include file: '(?P<what>[^']{1,200})'"),
            Sign("cannot open source file", r"error: cannot open source file \"(?P<what>[^\"]{1,200})\""),
        ),
        "the header {what} is missing",
        "install the package that has it",
        parts=_PACKAGES,
    ),
    Remedy(
        "damaged-file",
        (
            Sign(
                "file format not recognized",
                r"^(?:\S*/)?ld\S*: (?P<what>[^:]{1,300}): .{0,40}file format not reco",
            ),
            Sign("file too short", r"ld\S*: (?:error: )?(?P<what>[^:]{1,300}): file too short$"),
            Sign("file truncated", r"(?:ld|ar|ranlib)\S*: (?P<what>[^:]{1,300}): file truncated$"),
            Sign(
                "past the end of the file",
                r"ld\S*: error: (?P<what>[^:]{1,300}): section header table goes past",
            ),
            Sign(
                "malformed archive",
                r"(?:ld|ar|ranlib)\S*: (?:error: )?(?P<what>[^:]{1,300}): .{0,80}malformed arch",
            ),
            Sign("LNK1136", r"^(?P<what>[^\s:]{1,300}) : fatal error LNK1136\b"),
            Sign("ninja: error: build.ninja:", r"^ninja: error: (?P<what>build\.ninja):\d+: "),
        ),
        "{what} was cut short when an earlier build was broken off",
        AGAIN,
    ),
    Remedy(
        "missing-library",
        (
            Sign("cannot find -l", r"ld\S*: cannot find -l(?P<what>[\w.+-]{1,100})"),
            Sign("unable to find library -l", r"error: unable to find library -l(?P<what>[\w.+-]{1,100})"),
            Sign("library not found for -l", r"ld: library not found for -l(?P<what>[\w.+-]{1,100})"),
            Sign("cannot find", r"ld\S*: cannot find (?P<what>\w{0,20}crt\w{1,20}\.o)\b"),
            Sign("LNK1181", r"fatal error LNK1181: cannot open input file '(?P<what>[^']{1,200})'"),
            Sign("LNK1104", r"fatal error LNK1104: cannot open file '(?P<what>[^']{1,200}\.lib)'"),
        ),
        "the linker does not find the library {what}",
        "install the package that has it, its development part included",
        parts=(
            (
                r"crt\w*\.o$|^[cm]$|^pthread$|^dl$",
                "install the C library's development files (Debian: libc6-dev)",
            ),
            *_PACKAGES,
        ),
    ),
    Remedy(
        "vulkan-parts",
        (
            Sign("Could NOT find Vulkan", r"Could NOT find Vulkan \(missing: (?P<what>[\w ]{1,120})\)"),
            Sign("SPIRV-Headers", r'package configuration file provided by "(?P<what>SPIRV-Headers)"'),
        ),
        "what builds the Vulkan backend is not whole: {what} is missing",
        _VULKAN,
    ),
    Remedy(
        "missing-package",
        (
            Sign(
                "package configuration file",
                r'package configuration file provided by "(?P<what>[\w+.-]{1,80})"',
            ),
        ),
        "CMake does not find {what}",
        "install it with its development files, or name its folder in CMAKE_PREFIX_PATH",
        parts=_PACKAGES,
    ),
    Remedy(
        "cuda-missing",
        (
            Sign("No CMAKE_CUDA_COMPILER could be found"),
            Sign("The CMAKE_CUDA_COMPILER:"),
            Sign("The CUDA compiler", r"^The CUDA compiler$"),
            Sign("environment variable CUDACXX:"),
            Sign("CUDA Toolkit not found", r"^CUDA Toolkit not found$"),
            Sign("Failed to find nvcc", r"^Failed to find nvcc\.$"),
        ),
        "there is no CUDA toolkit, or not a whole one",
        "install it and set CUDACXX to its nvcc, or build without it: floatllm-build install --backend "
        "vulkan",
    ),
    Remedy(
        "ninja-missing",
        (Sign('build program corresponding to "Ninja"'),),
        "ninja is missing",
        "python -m pip install ninja (Debian: apt install ninja-build; Termux: pkg install ninja)",
    ),
    Remedy(
        "build-folder",
        (
            Sign("Does not match the generator used previously"),
            Sign("used to generate cache", r'does not match the source ".{0,1000}" used to generate cache'),
            Sign("where CMakeCache.txt was created"),
        ),
        "the build folder was made by another CMake generator, or it or the source was moved",
        AGAIN,
    ),
    Remedy(
        "program-gone",
        (
            Sign(
                "not found",
                SHELL + r"(?P<what>[^\s:]{1,300}): (?:inaccessible or )?not found$",
            ),
            Sign(
                "No such file or directory",
                SHELL + r"(?P<what>[^\s:]{1,300}): No such file or directory$",
            ),
        ),
        "{what}, which the build calls, is not there any more",
        f"install it again, or where it belonged to the build: {AGAIN}",
    ),
    Remedy(
        "source-gone",
        (
            Sign(
                "missing and no known rule",
                rf"^ninja: error: {QUOTED}', needed by .{{0,600}}missing and no known",
            ),
        ),
        "the source file {what} is not there any more",
        AGAIN,
    ),
)
