"""What this machine refused: room on the disk, memory, a process, permission, a long path."""

from __future__ import annotations

from floatllm_build.remedies.sign import AGAIN, ELSEWHERE, OUT_OF_MEMORY, SHELL, Remedy, Sign, system

_LESS = (
    "floatllm-build install --low-mem, or give it more memory: close programs, add swap, raise the "
    "container's limit (on a phone keep Termux in front: termux-wake-lock)"
)

MACHINE = (
    Remedy(
        "disk-full",
        (
            system("No space left on device"),
            system("Disk quota exceeded"),
            system("There is not enough space on the disk."),
            Sign("LNK1180", r"fatal error LNK1180\b"),
        ),
        "the disk is full, or a quota on it is used up",
        f"free space there, or {ELSEWHERE} (and in TMPDIR, where compilers keep what they pass on)",
    ),
    Remedy(
        "disk-full",
        (
            Sign("[Bus error]", r"terminated with signal 7 \[Bus error\]"),
            Sign("Bus error", r"unable to execute command: Bus error"),
            Sign("[code=135]", r"^FAILED: \[code=135\]"),
        ),
        "a linker or compiler died of a bus error, as one does that writes to a disk which is full",
        f"look with df; free space there, or {ELSEWHERE}",
    ),
    Remedy(
        OUT_OF_MEMORY,
        (
            Sign("Killed signal terminated program"),
            Sign("Killed", r"^Killed(?:: 9)?$|^\S{1,300}: line \d+: +\d+ Killed\b|: Killed \(program "),
            Sign("unable to execute command: Killed"),
            Sign("[code=137]", r"^FAILED: \[code=137\]"),
            Sign("signal 9", r"terminated with signal 9\b|died due to signal 9\b"),
            Sign("LLVM ERROR: out of memory", r"^LLVM ERROR: out of memory"),
            Sign("virtual memory exhausted", r"^(?:\S{1,300}: )?virtual memory exhausted\b"),
            Sign("out of memory allocating", r"^\S{1,300}: out of memory allocating \d+ bytes"),
            Sign("memory exhausted", r": memory exhausted$"),
            Sign("bad_alloc", r"^terminate called .{0,80}bad_alloc|what\(\): +std::bad_alloc$"),
            Sign("failed to map segment", r": failed to map segment from shared object$"),
            system("Cannot allocate memory"),
            Sign("fatal : Memory allocation failure"),
            Sign("out of heap space", r"fatal error C10(?:60|02)\b"),
            Sign("C3859", r"error C3859\b"),
            Sign("LNK1102", r"fatal error LNK1102\b"),
            system("The paging file is too small for this operation to complete."),
        ),
        "a compiler or linker needed more memory than there is",
        _LESS,
    ),
    Remedy(
        "too-many-processes",
        (system("Resource temporarily unavailable"), system("Too many open files")),
        "the system refused another process or open file: a limit of this user or container is reached",
        "floatllm-build install --jobs 1, or raise the limit (ulimit -u, ulimit -n, the container's "
        "pids.max)",
    ),
    Remedy(
        "no-exec",
        (
            Sign(
                "Permission denied",
                SHELL + r"(?P<what>[^\s/]{0,200}/\S{1,300}): (?:can't execute: )?Permission denied$",
            ),
            # CMake shows so what starting ninja gave.
            Sign(
                "Permission denied",
                r"^Permission denied$",
            ),
            Sign("shared object: Operation not permitted", r"failed to map segment from shared object: Oper"),
        ),
        "{what} may not be started: its folder is on a file system without permission to execute (noexec)",
        "name a folder on another file system in FLOATLLM_CACHE_DIR (on a phone one below the home folder, "
        "never shared storage), or mount this one with exec",
        unnamed="a program of the build",
    ),
    Remedy(
        "wrong-processor",
        (
            Sign(
                "Exec format error",
                SHELL + r"(?P<what>\S{1,400}): (?:cannot execute[^:]{0,30}: )?Exec format error$",
            ),
            system("Exec format error"),
        ),
        "{what} is made for another processor than this one",
        "correct CC and CXX (a cross compiler builds programs that cannot run here), and see that CMake and "
        f"ninja are this machine's; {AGAIN}",
        unnamed="a program of the build",
    ),
    Remedy(
        "path-too-long",
        (
            system("File name too long"),
            Sign("longer than 260 characters", r"Filename longer than 260 characters"),
            Sign(
                "C1083",
                r"fatal error C1083: Cannot open compiler generated file: '.{0,400}': Invalid argument",
            ),
            system("The filename or extension is too long."),
        ),
        "a path of the build is longer than the system allows",
        "name a folder with a short path in FLOATLLM_CACHE_DIR, such as C:\\f",
    ),
    Remedy(
        "read-only",
        (system("Read-only file system"),),
        "the file system of the build's folder is mounted for reading only",
        ELSEWHERE,
    ),
    Remedy(
        "not-writable",
        (
            system("Permission denied"),
            system("Access is denied."),
            Sign(
                "private pkgRedirects directory", r"Unable to \(re\)create the private pkgRedirects directory"
            ),
            Sign("Cannot open file for write", r"^CMake Error: Cannot open file for write: "),
        ),
        "a file or folder of the build cannot be written",
        f"look at the owner and permissions of the cache folder (an earlier run as root?), or {ELSEWHERE}",
    ),
    Remedy(
        "clock-skew",
        (Sign("still dirty after", r"^ninja: error: manifest '.{1,400}' still dirty after \d+ tries"),),
        "files of the build carry times that lie in the future: the clock was set back",
        f"set the clock right; {AGAIN}",
    ),
)

# Ninja before 1.13 says nothing of how a command ended, and no shell may be left to say it.
SILENT = Remedy(
    OUT_OF_MEMORY,
    (),
    "a compiler ended without a word, as one does that the system kills for memory",
    _LESS,
)
