"""Which operating system, in which dress."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from floatllm_build.host.files import read_text
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.tables.containers import MAKERS
from floatllm_build.values import OsFacts

_TERMUX = "/data/data/com.termux/files"
_KINDS = r"docker|podman|libpod|lxc|kubepods|containerd|crio"
# Programs that bring packages. On a system with several the first is its own: Debian has a package of dnf.
_PACKAGERS = (
    *("apt", "dnf", "microdnf", "tdnf", "yum", "zypper", "pacman", "apk", "xbps-install", "eopkg", "swupd"),
    *("emerge", "urpmi", "nix-shell", "guix", "opkg", "pkg", "pkg_add", "pkgin"),
)
_BSDS = {"FreeBSD", "OpenBSD", "NetBSD", "DragonFly", "MidnightBSD", "GhostBSD"}
# Of statvfs.
_READ_ONLY = 1
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
    linux = name == "Linux"
    release = _os_release(system, findings) if not android and name not in {"Windows", "Darwin"} else {}
    if android:
        version, api_level = _android(system, findings)
    else:
        version, api_level = _version(system, name, identity, release, findings), 0
    user = system.native("euid")
    told = identity.get("system_version", "")
    return OsFacts(
        name=name,
        release=told if name == "Windows" and told else identity.get("release", ""),
        version=version,
        id=_word(release, "ID"),
        id_like=tuple(release.get("ID_LIKE", "").lower().split()[:8]),
        version_id=_word(release, "VERSION_ID"),
        variant_id=_word(release, "VARIANT_ID"),
        codename=_codename(release),
        ubuntu_codename=_word(release, "UBUNTU_CODENAME"),
        debian_codename=_word(release, "DEBIAN_CODENAME"),
        image=_image(system, release, findings) if linux else "",
        root=user == 0 if isinstance(user, int) and name != "Windows" else None,
        sudo=_sudo(system) if linux or name in _BSDS else "",
        packager=_packager(system, findings) if linux or name in _BSDS else "",
        machine=machine,
        bits=bits,
        byte_order=_byte_order(identity.get("byteorder", "")),
        libc=_libc(system, libc_told, findings) if linux else "bionic" * android,
        container=_container(system, identity, findings) if linux else "",
        wsl=_wsl(system, identity.get("release", ""), findings) if linux else 0,
        termux=termux,
        api_level=api_level,
        rosetta=name == "Darwin" and machine == "x86_64" and _translated(system, findings),
    )


def _byte_order(text: str) -> Literal["", "little", "big"]:
    return "little" if text == "little" else "big" if text == "big" else ""


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


def _version(
    system: System, name: str, identity: Mapping[str, str], release: Mapping[str, str], findings: Findings
) -> str:
    told = identity.get("system_version", "")
    if name == "Windows":
        sold_as = identity.get("release", "")
        return f"Windows {sold_as}".strip() + (f" ({told})" if told else "")
    if name != "Darwin":
        return _called(release)
    if told and not told.startswith("10.16"):
        return f"macOS {told}"
    # A Python built with an old SDK is told 10.16 by every later system, unless it asks like this.
    answer = system.run(("sw_vers", "-productVersion"), variables={"SYSTEM_VERSION_COMPAT": "0"})
    if answer.rc == 0 and re.fullmatch(r"[0-9.]{1,20}", answer.out.strip()):
        findings.source("os.version", "sw_vers -productVersion")
        return f"macOS {answer.out.strip()}"
    findings.failed("sw_vers -productVersion", answer)
    return f"macOS {told}".strip()


_KEYS = (
    r"^(NAME|PRETTY_NAME|VERSION|ID|ID_LIKE|VERSION_ID|VARIANT_ID|VERSION_CODENAME|UBUNTU_CODENAME|"
    r"DEBIAN_CODENAME|OSTREE_VERSION)="
)


def _os_release(system: System, findings: Findings) -> dict[str, str]:
    """What os-release(5) says; systems without one have a file of their own with a line for people."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        told = parse_os_release(read_text(system, path, findings, only=_KEYS))
        if _called(told):
            findings.source("os.version", path)
            return told
    findings.note("/etc/os-release", "names no version of this system")
    return {}


def parse_os_release(text: str) -> dict[str, str]:
    """The values by their names, each of one line and without its quotes."""
    lines = re.findall(r"^(\w+)=[\"']?([^\"'\n]{0,200})", text, re.MULTILINE)
    return {key: value.strip() for key, value in lines}


def _called(told: Mapping[str, str]) -> str:
    """The system's name for people: PRETTY_NAME, else NAME and VERSION."""
    return told.get("PRETTY_NAME") or " ".join(filter(None, (told.get("NAME"), told.get("VERSION"))))


def _word(told: Mapping[str, str], key: str) -> str:
    """A value that is one word, as the standard has it: small letters, digits and `. _ -`; else empty."""
    value = told.get(key, "").lower()
    return value if re.fullmatch(r"[a-z0-9][a-z0-9._+-]{0,40}", value) else ""


def _codename(told: Mapping[str, str]) -> str:
    """VERSION_CODENAME, else the first word in the brackets of VERSION: `22.04 LTS (Jammy Jellyfish)`."""
    bracket = re.search(r"\(([A-Za-z][a-z]{2,20})[ )]", told.get("VERSION", ""))
    return _word(told, "VERSION_CODENAME") or (bracket[1].lower() if bracket else "")


def _image(
    system: System, release: Mapping[str, str], findings: Findings
) -> Literal["", "ostree", "read-only"]:
    if system.glob("/run/ostree-booted") or release.get("OSTREE_VERSION"):
        findings.source("os.image", "/run/ostree-booted")
        return "ostree"
    flags = system.native("usr_flags")
    if isinstance(flags, int) and flags & _READ_ONLY:
        findings.source("os.image", "statvfs(/usr)")
        return "read-only"
    return ""


def _sudo(system: System) -> Literal["", "sudo", "doas"]:
    return "sudo" if system.which("sudo") else "doas" if system.which("doas") else ""


def _packager(system: System, findings: Findings) -> str:
    found = next(((name, path) for name in _PACKAGERS if (path := system.which(name))), None)
    if found is None:
        return ""
    findings.source("os.packager", found[1])
    return found[0]


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


def _container(system: System, identity: Mapping[str, str], findings: Findings) -> str:
    for kind, source in _container_signs(system, identity, findings):
        if kind and kind != "wsl":
            known = re.fullmatch(r"[a-z][a-z0-9.-]{0,30}", kind) and kind not in {"oci", "yes", "true"}
            findings.source("os.container", source)
            return _NAMES.get(kind, kind) if known else "container"
    return ""


def _container_signs(
    system: System, identity: Mapping[str, str], findings: Findings
) -> list[tuple[str, str]]:
    """(kind, where it stands), the most telling first."""
    signs = [
        (
            kind if (variable and system.getenv(variable)) or (path and system.glob(path)) else "",
            variable or path,
        )
        for kind, variable, path in MAKERS
    ]
    signs.append((read_text(system, "/run/systemd/container", findings).strip(), "/run/systemd/container"))
    signs.append(((system.getenv("container") or "").strip(), "container"))
    groups = read_text(system, "/proc/1/cgroup", findings, only=_KINDS)
    match = re.search(_KINDS, groups)
    signs.append((match[0] if match else "", "/proc/1/cgroup"))
    signs += [("proot", sign) for sign in _proot_signs(system, identity)]
    return signs


def _proot_signs(system: System, identity: Mapping[str, str]) -> tuple[str, ...]:
    """Of a distribution inside proot on a phone: it has a name for the kernel, or Termux' variables."""
    named = "proot" in identity.get("release", "").lower()
    inherited = (system.getenv("PREFIX") or "").startswith(_TERMUX) or bool(system.getenv("TERMUX_VERSION"))
    signs = (("kernel release", named), ("TERMUX_VERSION", inherited), ("PROOT_L2S_DIR", _proot_set(system)))
    return tuple(sign for sign, there in signs if there)


def _proot_set(system: System) -> bool:
    return bool(system.getenv("PROOT_L2S_DIR") or system.getenv("PROOT_TMP_DIR"))


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
