"""Runs in a child: packs the wheel with scikit-build-core out of a build folder that is already built.

    python -m floatllm_build.build.skbuild FOLDER SETTINGS_JSON [metadata]    (where pyproject.toml is)

With `metadata` it makes the .dist-info folder alone. The last line of its output is the name of what it made
in FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig

from scikit_build_core.build import build_wheel, prepare_metadata_for_build_wheel


def main(folder: str, settings: str, kind: str = "wheel") -> None:
    if sys.platform == "android":
        # Of the tags that fit, the packer would take the first: the phone's own level. The wheel is good from
        # the level of its Python on, and a pip that knows nothing of Android takes no other.
        os.environ["_PYTHON_HOST_PLATFORM"] = sysconfig.get_platform()
    make = prepare_metadata_for_build_wheel if kind == "metadata" else build_wheel
    name = make(folder, json.loads(settings))
    sys.stdout.write(f"\n{name}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
