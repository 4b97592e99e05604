"""Runs in a child: packs the wheel with scikit-build-core out of a build folder that is already built.

    python -m floatllm_build.build.skbuild WHEEL_FOLDER SETTINGS_JSON    (in the folder of pyproject.toml)

The last line of its output is the file name of the wheel.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig

from scikit_build_core.build import build_wheel


def main(wheel_folder: str, settings: str) -> None:
    if sys.platform == "android":
        # Of the tags that fit, the packer would take the first: the phone's own level. The wheel is good from
        # the level of its Python on, and a pip that knows nothing of Android takes no other.
        os.environ["_PYTHON_HOST_PLATFORM"] = sysconfig.get_platform()
    name = build_wheel(wheel_folder, json.loads(settings))
    sys.stdout.write(f"\n{name}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
