"""Which operating system, in which dress."""

from __future__ import annotations

import re
from collections.abc import Mapping

from floatllm_build.host.files import read_text
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import OsFacts

_TERMUX = "/data/data/com.termux/files"
_KINDS = r"docker|podman|libpod|lxc|kubepods|containerd|crio"
# What the kernel's groups are called -> what people call it.
_NAMES = {"libpod": "podman", "kubepods": "kubernetes"}


def identity_of(system: System) -> dict[str, str]:
    """What the running Python says of itself and its machine, all as text: a record may be made by hand."""
    answer = system.native("identity")
    told = answer if isinstance(answer, Mapping) else {}
    return {str(name): str(value) for name, value in told.items() if isinstance(value, (str, int))}


def probe_os(system: System, findings: Findings) -> OsFacts:
    identity = identity_of(system)
    if not identity:
        findings.note("the running Python", "does not say which system this is")
    machine, libc_told = identity.get("machine", ""), identity.get("libc", "")
    bits = _bits(identity.get("bits", ""))
    findings.source("os", "the running Python")
    if bits == 32 and machine.lower() in {"aarch64", "arm64", "armv8l", "x86_64", "amd64"}:
        findings.note("the running Python", f"a 32-bit program on a 64-bit machine ({machine})")
    termux = _is_termux(system, identity, libc_told, findings)
    # Python before 3.13 calls Termux "linux"; CMake and ggml say Android there.
    android = termux or identity.get("sys_platform") == "android"
    name = "Android" if android else identity.get("system") or "unknown"
    if android:
        version, api_level = _android(system, findings)
    else:
        version, api_level = _version(system, name, identity, findings), 0
    linux = name == "Linux"
    told = identity.get("system_version", "")
    return OsFacts(
        name=name,
        release=told if name == "Windows" and told else identity.get("release", ""),
        version=version,
        machine=machine,
        bits=bits,
        libc=_libc(system, libc_told, findings) if linux else "bionic" * android,
        container=_container(system, findings) if linux else "",
        wsl=_wsl(system, identity.get("release", ""), findings) if linux else 0,
        termux=termux,
        api_level=api_level,
        rosetta=name == "Darwin" and machine == "x86_64" and _translated(system, findings),
    )


def _bits(text: str) -> int:
    return int(text) if text in {"32", "64"} else 0


def _is_termux(system: System, identity: Mapping[str, str], libc: str, findings: Findings) -> bool:
    prefix = identity.get("prefix", "")
    if prefix.startswith(_TERMUX):
        findings.source("os.termux", f"sys.prefix: {prefix}")
        return True
    # A distribution inside proot inherits Termux' variables, and has a C library of its own.
    if identity.get("sys_platform") not in {"linux", "android"} or libc.startswith(("glibc", "musl")):
        return False
    for variable in ("TERMUX_VERSION", "PREFIX"):
        value = system.getenv(variable) or ""
        if value and (variable == "TERMUX_VERSION" or value.startswith(_TERMUX)):
            findings.source("os.termux", variable)
            return True
    # ssh and cron may run without the variables, and a virtual environment lies anywhere. Only Termux itself
    # may look into its folder.
    if system.glob("/system/build.prop") and system.glob(f"{_TERMUX}/usr/bin/pkg"):
        findings.source("os.termux", f"{_TERMUX}/usr/bin/pkg")
        return True
    return False


def _android(system: System, findings: Findings) -> tuple[str, int]:
    """What people call the version, and the level of the programming interface; "" and 0 unknown."""
    answers = {name: _property(system, name, findings) for name in ("release", "sdk")}
    release, level = answers["release"], answers["sdk"]
    version = f"Android {release}" if re.fullmatch(r"[\w.]{1,20}", release) else ""
    return version, int(level) if re.fullmatch(r"[0-9]{1,4}", level, re.ASCII) else 0


def _property(system: System, name: str, findings: Findings) -> str:
    key, fact = f"ro.build.version.{name}", {"release": "os.version", "sdk": "os.api_level"}[name]
    answer = system.run(("getprop", key))
    if answer.rc == 0 and answer.out.strip():
        findings.source(fact, f"getprop {key}")
        return answer.out.strip()
    findings.failed(f"getprop {key}", answer)
    path = "/system/build.prop"
    try:
        text = system.read(path, only=r"^ro\.build\.version\.(release|sdk)=")
    except OSError as error:
        findings.note(path, error.strerror or str(error))
        return ""
    match = re.search(rf"^{re.escape(key)}=(.+)$", text, re.MULTILINE)
    if match:
        findings.source(fact, path)
    return match[1].strip() if match else ""


def _version(system: System, name: str, identity: Mapping[str, str], findings: Findings) -> str:
    told = identity.get("system_version", "")
    if name == "Windows":
        release = identity.get("release", "")
        return f"Windows {release}".strip() + (f" ({told})" if told else "")
    if name != "Darwin":
        return _linux_version(system, findings)
    if told and not told.startswith("10.16"):
        return f"macOS {told}"
    # A Python built with an old SDK is told 10.16 by every later system, unless it asks like this.
    answer = system.run(("sw_vers", "-productVersion"), variables={"SYSTEM_VERSION_COMPAT": "0"})
    if answer.rc == 0 and re.fullmatch(r"[0-9.]{1,20}", answer.out.strip()):
        findings.source("os.version", "sw_vers -productVersion")
        return f"macOS {answer.out.strip()}"
    findings.failed("sw_vers -productVersion", answer)
    return f"macOS {told}".strip()


def _linux_version(system: System, findings: Findings) -> str:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        text = read_text(system, path, findings, only=r"^(PRETTY_NAME|NAME|VERSION)=")
        if version := parse_os_release(text):
            findings.source("os.version", path)
            return version
    findings.note("/etc/os-release", "names no version of this system")
    return ""


def parse_os_release(text: str) -> str:
    """The system's name for people: PRETTY_NAME, else NAME and VERSION."""
    lines = re.findall(r"^(\w+)=[\"']?([^\"'\n]{0,200})", text, re.MULTILINE)
    told = {key: value.strip() for key, value in lines}
    return told.get("PRETTY_NAME") or " ".join(filter(None, (told.get("NAME"), told.get("VERSION"))))


def _libc(system: System, told: str, findings: Findings) -> str:
    musl = system.glob("/lib/ld-musl-*.so.1")
    if told.startswith("glibc") and not (musl and not system.glob("/lib*/ld-linux*.so.*")):
        return told
    if not musl:
        findings.note("the running Python", f"does not know its C library: {told or 'no answer'}")
        return ""
    # The loader is the library; run without a program it says who it is, and fails.
    answer = system.run((musl[0],))
    version = re.search(r"^Version ([0-9][\w.]{0,20})", answer.err, re.MULTILINE)
    findings.source("os.libc", musl[0])
    if version is None:
        findings.failed(musl[0], answer)
    return f"musl {version[1]}" if version else "musl"


def _container(system: System, findings: Findings) -> str:
    for kind, source in _container_signs(system, findings):
        if kind and kind != "wsl":
            known = re.fullmatch(r"[a-z][a-z0-9.-]{0,30}", kind) and kind not in {"oci", "yes", "true"}
            findings.source("os.container", source)
            return _NAMES.get(kind, kind) if known else "container"
    return ""


def _container_signs(system: System, findings: Findings) -> list[tuple[str, str]]:
    """(kind, where it stands), the most telling first."""
    signs = [("kubernetes" if system.getenv("KUBERNETES_SERVICE_HOST") else "", "KUBERNETES_SERVICE_HOST")]
    for kind, path in (("podman", "/run/.containerenv"), ("docker", "/.dockerenv")):
        signs.append((kind if system.glob(path) else "", path))
    signs.append((read_text(system, "/run/systemd/container", findings).strip(), "/run/systemd/container"))
    signs.append(((system.getenv("container") or "").strip(), "container"))
    groups = read_text(system, "/proc/1/cgroup", findings, only=_KINDS)
    match = re.search(_KINDS, groups)
    signs.append((match[0] if match else "", "/proc/1/cgroup"))
    return signs


def _wsl(system: System, release: str, findings: Findings) -> int:
    distribution = system.getenv("WSL_DISTRO_NAME")
    if "microsoft-standard" in release.lower() or (distribution and "Microsoft" not in release):
        # People build kernels of their own for version 2; version 1 has none that could be changed.
        findings.source("os.wsl", "kernel release" if "microsoft" in release.lower() else "WSL_DISTRO_NAME")
        return 2
    if "Microsoft" in release:
        findings.source("os.wsl", "kernel release")
        return 1
    return 0


def _translated(system: System, findings: Findings) -> bool:
    answer = system.run(("sysctl", "-n", "sysctl.proc_translated"))
    # On a Mac with an Intel processor the name is unknown, which answers the question as well.
    if answer.rc in {124, 127}:
        findings.failed("sysctl sysctl.proc_translated", answer)
    findings.source("os.rosetta", "sysctl sysctl.proc_translated")
    return answer.out.strip() == "1"
