"""CUDA toolkit x host compiler: what nvcc compiles the host's half with."""

from __future__ import annotations

from pathlib import PurePath

from floatllm_build.rules.cuda_fixes import older_compiler_fix
from floatllm_build.rules.cuda_targets import kit_name
from floatllm_build.rules.fit import Obstacle
from floatllm_build.tables.cuda import failure_of, newest_msvc_of
from floatllm_build.values import Compiler, CudaToolkit, Host, Reason
from floatllm_build.versions import version_tuple


def host_compiler(host: Host, kit: CudaToolkit) -> tuple[str, tuple[Reason, ...]] | Obstacle:
    """The compiler that nvcc is to use, empty if its own choice is the same.

    One that the user names for nvcc comes first, and no other is taken then.
    """
    if host.toolchain.nvcc_host_by:
        return _named(host, kit)
    cxx = host.toolchain.cxx
    unfit = _unfit(cxx, kit) if cxx else ""
    if cxx is None or not unfit:
        # nvcc takes g++ by itself, whatever CXX says.
        told = cxx and (cxx.kind == "clang" or (cxx.kind == "gcc" and _program(cxx) not in {"c++", "g++"}))
        return (cxx.command if cxx and told and _program(cxx) else ""), ()
    older = _older(host, kit)
    if older:
        text = (
            f"{unfit}; {older.command} ({older.kind} {older.version}) compiles the host code for nvcc instead"
        )
        return older.command, (Reason(rule="cuda-host-compiler", text=text),)
    fix = _older_msvc_fix(host, kit) if cxx.kind == "msvc" else older_compiler_fix(host, newest_gcc(kit))
    return Obstacle(reason=f"{unfit}, and no older one was found", fix=fix, near=True)


def _named(host: Host, kit: CudaToolkit) -> tuple[str, tuple[Reason, ...]] | Obstacle:
    variable, named = host.toolchain.nvcc_host_by, host.toolchain.nvcc_host
    if named is None:
        said = next((note.said for note in host.notes if note.source == variable), "it does not answer")
        return Obstacle(reason=f"{variable} is set: {said}", fix=f"correct or unset {variable}")
    if unfit := _unfit(named, kit):
        older = _older(host, kit)
        fix = (
            f"unset {variable}, or set it to {older.command}" if older else _to_be_named(host, kit, variable)
        )
        return Obstacle(reason=f"{variable} names {named.command}: {unfit}", fix=fix, near=True)
    text = (
        f"{named.command} ({named.kind} {named.version}) compiles the host code for nvcc, as {variable} says"
    )
    return named.command, (Reason(rule="cuda-host-compiler", text=text),)


def _to_be_named(host: Host, kit: CudaToolkit, variable: str) -> str:
    newest = newest_gcc(kit)
    wanted = f"g++ {newest} or older" if newest else "an older g++"
    return f"{older_compiler_fix(host, newest)}; then set {variable} to {wanted}"


def _older(host: Host, kit: CudaToolkit) -> Compiler | None:
    fitting = (one for one in host.toolchain.others if _program(one) and not _unfit(one, kit))
    return next(fitting, None)


def _unfit(compiler: Compiler, kit: CudaToolkit) -> str:
    """Why the toolkit does not go with the compiler; empty if it does."""
    version = version_tuple(compiler.version)
    major = (version or (0,))[0]
    name = f"{compiler.kind} {compiler.version}"
    if compiler.kind == "msvc":
        newest = newest_msvc(kit)
        if newest < 1 or len(version) < 2 or version[0] * 100 + version[1] <= newest:
            return ""
        limit = f"{newest // 100}.{newest % 100:02}"
        return f"MSVC {compiler.version} is newer than {limit}, the newest that {kit_name(kit)} takes"
    newest = {"gcc": kit.newest_gcc, "clang": kit.newest_clang}.get(compiler.kind, 0)
    if 0 < newest < major:
        return f"{name} is newer than {newest}, the newest that {kit_name(kit)} takes"
    failure = failure_of(version_tuple(kit.version), compiler.kind, major)
    return f"{name} is too new for {kit_name(kit)}: {failure.why}" if failure else ""


def newest_gcc(kit: CudaToolkit) -> int:
    """Newest major version of gcc that works, 0 unknown: the header's, or what is known to work."""
    failure = failure_of(version_tuple(kit.version), "gcc")
    return min(filter(None, (kit.newest_gcc, failure.major - 1 if failure else 0)), default=0)


def newest_msvc(kit: CudaToolkit) -> int:
    """Newest _MSC_VER that the toolkit takes, 0 unknown."""
    return kit.newest_msvc or newest_msvc_of(version_tuple(kit.version))


def _older_msvc_fix(host: Host, kit: CudaToolkit) -> str:
    """An older MSVC next to the new one: of an older Visual Studio that is here, or a toolset of this one."""
    newest = newest_msvc(kit)
    # Visual Studio 2019 has _MSC_VER 192x, 2022 193x and 194x, 2026 195x.
    release, major = (2022, 17) if newest >= 1930 else (2019, 16)
    here = next((one for one in host.toolchain.msvc if version_tuple(one.version)[:1] == (major,)), None)
    # 17.10 began 1940, which older toolkits do not take.
    if here and (newest != 1939 or version_tuple(here.version) < (17, 10)):
        return f"run this from the `x64 Native Tools Command Prompt` of {here.path}"
    toolset = f"{newest // 100 - 5}.{newest % 100}"
    return (
        f"install a newer CUDA toolkit, or Visual Studio {release}'s C++ tools (MSVC up to {toolset}) next "
        f"to this one, and run this from their `x64 Native Tools Command Prompt`"
    )


def _program(compiler: Compiler) -> str:
    """The file name of the compiler; empty for a command with arguments, which nvcc does not take."""
    return "" if " " in compiler.command else PurePath(to_cmake(compiler.command)).name


def to_cmake(path: str) -> str:
    return path.replace("\\", "/")  # to CMake a backslash is an escape
