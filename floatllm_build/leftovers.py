"""What this tool has left in the folder for temporary files."""

from __future__ import annotations

import stat
from pathlib import Path

from floatllm_build.trust import judge, me_in, status_of

# Records of errors that found no place in the cache, and what the self-test of an installed engine said.
ERRORS, _LOGS = "floatllm-error-*.json", "floatllm-verify-*.log"


def left_in(temp: Path, *patterns: str) -> tuple[Path, ...]:
    """What this tool has left in the folder for temporary files; without patterns all of it.

    Everybody may write there: only ordinary files count that are this user's and that nobody else can write.
    """
    every = (path for pattern in patterns or (ERRORS, _LOGS) for path in temp.glob(pattern))
    return tuple(sorted(path for path in every if _is_own_file(path)))


def _is_own_file(path: Path) -> bool:
    try:
        status = status_of(path)
    except OSError:
        return False
    me = me_in(path.parent)
    return stat.S_ISREG(status.mode) and (me is None or not judge(status, me)[0])
