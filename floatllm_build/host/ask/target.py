"""Says what Python runs it, in one line of JSON. It may be any Python 3, so all here is old and plain."""

import glob
import importlib.util
import json
import os
import site
import struct
import sys
import sysconfig

try:
    platform = sysconfig.get_platform()
except KeyError:
    # Some Pythons for Android do not know a 32-bit userland on a 64-bit kernel.
    platform = sys.platform
prefix = sys.prefix
in_venv = prefix != sys.base_prefix
config = os.path.join(prefix, "pyvenv.cfg")  # noqa: PTH118
made_by_uv = False
if os.path.isfile(config):  # noqa: PTH113
    with open(config, "rb") as file:  # noqa: PTH123
        made_by_uv = any(line.split(b"=")[0].strip() == b"uv" for line in file)
folders = [sysconfig.get_path("platlib")]
if not in_venv:
    # Where pip goes when the common folder cannot be written.
    folders.append(site.getusersitepackages())
installed = [
    path
    for folder in folders
    for path in glob.glob(os.path.join(glob.escape(folder), "floatllm-*.dist-info"))  # noqa: PTH118, PTH207
]
answer = {
    "executable": sys.executable,
    "version": list(sys.version_info[:2]),
    "bits": struct.calcsize("P") * 8,
    "platform": platform,
    "prefix": prefix,
    "venv": in_venv,
    "conda": os.path.isdir(os.path.join(prefix, "conda-meta")),  # noqa: PTH112, PTH118
    "managed": os.path.isfile(  # noqa: PTH113
        os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")  # noqa: PTH118
    ),
    "pipx": os.path.isfile(os.path.join(prefix, "pipx_metadata.json")),  # noqa: PTH113, PTH118
    "uv_tool": os.path.isfile(os.path.join(prefix, "uv-receipt.toml")),  # noqa: PTH113, PTH118
    "uv": made_by_uv,
    "pip": importlib.util.find_spec("pip") is not None,
    "installed": max(installed) if installed else "",
}
# On a line of its own, whatever was printed before. Letters as they are, whatever the locale is, so that a
# folder with an accent is found in it.
text = "\n" + json.dumps(answer, ensure_ascii=False) + "\n"
sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
