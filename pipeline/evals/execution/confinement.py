"""Confinement of a process that is about to execute a program that nobody has checked.

A seccomp filter allows the system calls of `ALLOWED`, and to open folders for listing. All others
fail with "permission denied": opening files, sockets, new processes and threads, signals, anything
that changes a file, memory that holds new machine code. The process loses its capabilities, cannot
be dumped or traced, and ends with its parent. Where the kernel has Landlock, it reaches no folder
but its own. Linux; uses the standard library only.
"""

import errno
import os
import platform
import resource
import signal
import struct
from pathlib import Path
from typing import Any

# System calls by name, each with its number on x86-64 and on aarch64 (None: there is none).
ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "uname": (63, 160),
    "getcwd": (79, 17),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "getdents64": (217, 61),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "newfstatat": (262, 79),
    "faccessat": (269, 48),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "statx": (332, 291),
    "rseq": (334, 293),
    "faccessat2": (439, 439),
}
# allowed for folders, to list them
OPEN = (2, None)
OPENAT = (257, 56)
# allowed without execution
MMAP = (9, 222)
MPROTECT = (10, 226)

# column of the numbers above, AUDIT_ARCH, and O_DIRECTORY
ARCHITECTURES = {
    "x86_64": (0, 0xC000003E, 0o200000),
    "aarch64": (1, 0xC00000B7, 0o40000),
}

# BPF instructions
LOAD = 0x20
EQUAL = 0x15
GREATER_OR_EQUAL = 0x35
ANY_BIT = 0x45
RETURN = 0x06

# results of the filter
ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EACCES
KILL = 0x80000000

# offsets within struct seccomp_data
NUMBER_OFFSET = 0
ARCHITECTURE_OFFSET = 4
ARGUMENTS_OFFSET = 16
ARGUMENT_BYTES = 8

X32_CALLS = 0x40000000  # a second set of numbers on x86-64
PROT_EXEC = 4
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION = 0x20080522  # of two words per set
CAPABILITY_BYTES = 24  # effective, permitted and inheritable sets

# options of prctl
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38

# Landlock: numbers of its system calls, on every architecture
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_VERSION_FLAG = 1
LANDLOCK_PATH_BENEATH = 1
LANDLOCK_READ_DIR = 1 << 3
# number of file system rights by the version of Landlock that brought them
LANDLOCK_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))
LANDLOCK_NETWORK_VERSION = 4
LANDLOCK_SCOPES_VERSION = 6
LANDLOCK_NETWORK = 0b11  # bind and connect
LANDLOCK_SCOPES = 0b11  # abstract sockets and signals

OPEN_FILES = 32


def seccomp_filter(machine: str) -> bytes:
    """Returns the filter as BPF instructions, 8 bytes each."""
    column, architecture, directory = ARCHITECTURES[machine]
    code = [
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_OFFSET),
        (GREATER_OR_EQUAL, 0, 1, X32_CALLS),
        (RETURN, 0, 0, REFUSE),
    ]
    for numbers in ALLOWED.values():
        number = numbers[column]
        if number is not None:
            code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]

    for numbers in (MMAP, MPROTECT):
        code += [
            (EQUAL, 0, 4, numbers[column]),
            (LOAD, 0, 0, ARGUMENTS_OFFSET + 2 * ARGUMENT_BYTES),
            (ANY_BIT, 1, 0, PROT_EXEC),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, REFUSE),
        ]

    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    for opening, flags_argument in ((OPEN, 1), (OPENAT, 2)):
        number = opening[column]
        if number is not None:
            code += [
                (EQUAL, 0, 5, number),
                (LOAD, 0, 0, ARGUMENTS_OFFSET + flags_argument * ARGUMENT_BYTES),
                (ANY_BIT, 2, 0, writing),
                (ANY_BIT, 0, 1, directory),
                (RETURN, 0, 0, ALLOW),
                (RETURN, 0, 0, REFUSE),
            ]
    code.append((RETURN, 0, 0, REFUSE))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def confine(memory_bytes: int, folder: str) -> None:
    """Limits the memory, files, rights and system calls of this process, for good.

    Args:
        memory_bytes: that the process may take beyond what it has.
        folder: the only one that the process may list, where the kernel has Landlock.

    Raises:
        OSError: the kernel refuses.
        KeyError: the architecture is not one of `ARCHITECTURES`.
    """
    address_space = _address_space_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    code = seccomp_filter(platform.machine())

    # not a name of this module: what the process executes afterwards must not find it there
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "a signal at its parent's end")
    _check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "a process that cannot be dumped")
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "to give up new rights")
    header = struct.pack("<Ii", CAPABILITY_VERSION, 0)
    _check(libc.capset(header, bytes(CAPABILITY_BYTES)), "to give up capabilities")
    _apply_landlock(libc, folder)

    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count, padding, the address
    program = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(instructions))
    _check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "a seccomp filter")


def _apply_landlock(libc: Any, folder: str) -> None:
    """Denies all files, folders and ports but the listing of `folder`, if there is Landlock."""
    version = landlock_version(libc)
    if version < 1:
        return

    rights = 0
    for since, count in LANDLOCK_RIGHTS:
        if version >= since:
            rights = (1 << count) - 1
    attributes = struct.pack("<Q", rights)
    if version >= LANDLOCK_NETWORK_VERSION:
        attributes += struct.pack("<Q", LANDLOCK_NETWORK)
    if version >= LANDLOCK_SCOPES_VERSION:
        attributes += struct.pack("<Q", LANDLOCK_SCOPES)

    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    _check(ruleset, "a Landlock ruleset")
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    rule = struct.pack("<Qi", LANDLOCK_READ_DIR, descriptor)
    _check(
        libc.syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_PATH_BENEATH, rule, 0),
        "a Landlock rule",
    )
    _check(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "Landlock")
    os.close(descriptor)
    os.close(ruleset)


def landlock_version(libc: Any) -> int:
    """Returns the version of Landlock that the kernel has; below 1: none."""
    version: int = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION_FLAG)
    return version


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _check(result: int, protection: str) -> None:
    if result < 0:
        import ctypes

        raise OSError(ctypes.get_errno(), f"the kernel refuses {protection}")
