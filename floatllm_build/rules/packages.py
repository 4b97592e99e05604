"""The command that brings something, for the package manager that this machine has."""

from __future__ import annotations

import re
import shlex

from floatllm_build.rules.systems import ids_of, rhel_of
from floatllm_build.tables.packages import IMAGES, MANAGERS, OTHERWISE, Image, Manager, Need
from floatllm_build.tables.systems import IMAGES as IMAGE_SYSTEMS
from floatllm_build.tables.systems import MANAGERS as OF_SYSTEMS
from floatllm_build.values import Host, OsFacts
from floatllm_build.versions import version_tuple

__all__ = [
    "Need",
    "as_root",
    "by_this_user",
    "chain",
    "image_of",
    "install_command",
    "manager",
    "new_venv",
    "pip_command",
    "quoted",
]

# The first Red Hat with dnf.
_FIRST_DNF = 8
_AS_ROOT = ", as root"


def as_root(os_facts: OsFacts, command: str) -> str:
    """`command`, which is written with sudo and installs packages, as it is run here: with what makes this
    user root, and on a system that is an image in a container.
    """
    image = image_of(os_facts)
    return _in_a_container(image, command) if image else by_this_user(os_facts, command)


def by_this_user(os_facts: OsFacts, command: str) -> str:
    """`command`, which is written with sudo, as this user runs it on the system itself, image or not.

    Root needs no sudo. Where nobody says who the user is, that is taken for granted in a container without
    sudo; but the user of a toolbox is the one outside.
    """
    unknown = os_facts.root is None and not os_facts.sudo
    if os_facts.root or (unknown and os_facts.container not in {"", "toolbox", "distrobox"}):
        return command.replace("sudo ", "").replace("doas ", "")
    if os_facts.sudo == "doas":
        return command.replace("sudo ", "doas ")
    if os_facts.root is False and not os_facts.sudo and "sudo " in command:
        return command.replace("sudo ", "") + _AS_ROOT
    return command


def chain(*fixes: str) -> str:
    """Fixes that are done one after the other: one line for a shell where all of them are commands."""
    told = [fix for fix in fixes if fix]
    return (" && " if all(map(_is_command, told)) else "; then ").join(told)


def _is_command(fix: str) -> bool:
    own = {
        one.install.replace("sudo ", "").replace("doas ", "").partition(" ")[0] for one in MANAGERS.values()
    }
    known = fix.partition(" ")[0] in {"sudo", "doas", "floatllm-build", *own}
    return (known or " -m pip " in fix) and " (" not in fix and not fix.endswith(_AS_ROOT)


def pip_command(host: Host, requirement: str) -> str:
    """Installs into the environment that the engine goes into, where the toolkits are looked for too."""
    target = host.target
    install = f"-m pip install {quoted(host.os, requirement)}"
    if not target:
        return f"python {install}"
    if target.externally_managed or target.kind in {"pipx", "uv-tool", "uvx"}:
        make, python = new_venv(windows=host.os.name == "Windows")
        return f"{make} && {python} {install}"
    python = quoted(host.os, target.executable)
    bring_pip = "" if target.has_pip else f"{python} -m ensurepip && "
    return f"{bring_pip}{python} {install}"


def new_venv(*, windows: bool) -> tuple[str, str]:
    """The command that makes an environment of one's own in this folder, and the Python in it."""
    if windows:
        return "py -m venv .venv", r".venv\Scripts\python"
    return "python3 -m venv .venv", ".venv/bin/python"


def quoted(os_facts: OsFacts, word: str) -> str:
    """As the system's shell takes it; the symbol of a folder stays as it is."""
    if os_facts.name == "Windows":
        return f'"{word}"' if re.search(r"[\s<>&|^,;=()]", word) else word
    plain = re.sub(r"[{}]", "", word)
    return word if shlex.quote(plain) == plain else shlex.quote(word)


def manager(os_facts: OsFacts) -> str:
    """The package manager: a key of MANAGERS, or empty. That of the system itself, image or not."""
    if os_facts.termux or os_facts.name == "Android":
        return "pkg"
    if os_facts.name in {"Darwin", "Windows"}:
        return "brew" if os_facts.name == "Darwin" else "winget"
    ids = ids_of(os_facts)
    image = IMAGES.get(IMAGE_SYSTEMS.get(ids[0] if ids else "", ""))
    of_system = next((OF_SYSTEMS[one] for one in ids if one in OF_SYSTEMS), "")
    own = (image.manager if image else "") or of_system
    if own == "dnf" and os_facts.packager in {"yum", "microdnf", "tdnf"}:
        return os_facts.packager
    if own == "dnf" and (0 < rhel_of(os_facts) < _FIRST_DNF or _is_amazon_2(os_facts)):
        return "yum"
    # Of a system that nobody knows counts what it has.
    return own or (os_facts.packager if os_facts.packager in MANAGERS else "")


def _is_amazon_2(os_facts: OsFacts) -> bool:
    """Amazon Linux 2, and 1, whose version is a year: 2018.03. From 2023 on it has dnf."""
    if ids_of(os_facts)[:1] != ("amzn",):
        return False
    version = version_tuple(os_facts.version_id) or version_tuple(os_facts.version.rpartition(" ")[2])
    return () < version < (2019,)


def install_command(os_facts: OsFacts, *needs: Need) -> str:
    """One command for all of `needs`; where the system is not known, those of the two most common."""
    if not needs:
        return ""
    if needs == ("c++",) and os_facts.name in {"Darwin", "Windows"}:
        return (
            "xcode-select --install"
            if os_facts.name == "Darwin"
            else "winget install Microsoft.VisualStudio.2022.BuildTools --override "
            '"--passive --add Microsoft.VisualStudio.Workload.VCTools --includeRecommended"'
        )
    own = manager(os_facts)
    if image := image_of(os_facts):
        inside = _command(image.manager or own, needs) or "; ".join(OTHERWISE[need] for need in needs)
        return _in_a_container(image, inside) + _or_into_the_image(os_facts, image, needs)
    if not own and os_facts.name == "Linux":
        both = [(_command("apt", needs), "Debian, Ubuntu"), (_command("dnf", needs), "Fedora")]
        told = [f"{command} ({where})" for command, where in both if command]
        return as_root(os_facts, ", ".join(told)) or OTHERWISE[needs[0]]
    command = as_root(os_facts, _command(own, needs))
    return command or "; ".join(OTHERWISE[need] for need in needs)


def image_of(os_facts: OsFacts) -> Image | None:
    """How packages come to this system if it is an image; None if they are installed as usual, as in every
    container, and where the package manager makes environments of its own.
    """
    if os_facts.container or os_facts.name != "Linux" or manager(os_facts) in {"nix-shell", "guix"}:
        return None
    words = re.findall(r"[a-z][a-z-]{3,}", os_facts.version.lower())
    names = (*ids_of(os_facts)[:1], os_facts.variant_id, *(() if os_facts.variant_id else words))
    known = [IMAGE_SYSTEMS[name] for name in names if name in IMAGE_SYSTEMS]
    if known:
        return IMAGES[next((one for one in known if one != "other"), "other")]
    if os_facts.image == "ostree":
        return IMAGES["rpm-ostree" if "fedora" in ids_of(os_facts) else "other"]
    return IMAGES["other"] if os_facts.image else None


def _in_a_container(image: Image, command: str) -> str:
    made = f"this system is an image, so make a container in it: {image.container}"
    return f"{made}, and run there: {command}, then floatllm-build"


def _or_into_the_image(os_facts: OsFacts, image: Image, needs: tuple[Need, ...]) -> str:
    names = _names(image.manager, needs)
    if not image.layer or not names:
        return ""
    return f". Or change the image: {by_this_user(os_facts, image.layer.format(names))}"


def _command(own: str, needs: tuple[Need, ...]) -> str:
    names = _names(own, needs)
    return MANAGERS[own].install.format(names) if names else ""


def _names(own: str, needs: tuple[Need, ...]) -> str:
    """What the package manager calls the needs; empty if it lacks one of them."""
    known: Manager | None = MANAGERS.get(own)
    if known is None or not all(need in known.names for need in needs):
        return ""
    return " ".join(dict.fromkeys(name for need in needs for name in known.names[need].split()))
