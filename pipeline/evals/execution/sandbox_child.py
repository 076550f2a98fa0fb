"""Confines its own process and executes a Python program from standard input in it.

    python -I sandbox_child.py TIMEOUT_S MEMORY_BYTES < program

Exit code 0: the program ran to its end. Linux; started by sandbox.py. Uses the standard library
only.

A seccomp filter of the process allows the system calls of `ALLOWED`, and to open files for reading.
All others fail with "permission denied": sockets, new processes and threads, signals, anything that
changes a file. Time and memory are limited as well; a program cannot catch the signal that ends its
time.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys

# exit codes
PASSED = 0
FAILED = 1
NO_SANDBOX = 3

# System calls by name, each with its number on x86-64 and on aarch64 (None: there is none).
ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
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
    "readlink": (89, None),
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
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "statx": (332, 291),
    "rseq": (334, 293),
    "faccessat2": (439, 439),
}
# allowed for reading
OPEN = (2, None)
OPENAT = (257, 56)

# column of the numbers above, and AUDIT_ARCH
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

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
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2


def seccomp_filter(machine: str) -> bytes:
    """Returns the filter as BPF instructions, 8 bytes each."""
    column, architecture = ARCHITECTURES[machine]
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

    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    for numbers, flags_argument in ((OPEN, 1), (OPENAT, 2)):
        number = numbers[column]
        if number is not None:
            code += [
                (EQUAL, 0, 4, number),
                (LOAD, 0, 0, ARGUMENTS_OFFSET + flags_argument * ARGUMENT_BYTES),
                (ANY_BIT, 1, 0, writing),
                (RETURN, 0, 0, ALLOW),
                (RETURN, 0, 0, REFUSE),
            ]
    code.append((RETURN, 0, 0, REFUSE))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def confine(memory_bytes: int) -> None:
    """Limits the memory, files and system calls of this process, for good.

    Raises:
        OSError: the kernel refuses.
        KeyError: the architecture is not one of `ARCHITECTURES`.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    code = seccomp_filter(platform.machine())
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count, padding, the address
    program = ctypes.create_string_buffer(
        struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(instructions))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "the kernel refuses a seccomp filter")


def main() -> None:
    """Reads the program, confines this process and runs the program within its time."""
    timeout_s = float(sys.argv[1])
    memory_bytes = int(sys.argv[2])
    source = sys.stdin.buffer.read()
    null_device = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null_device, descriptor)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)  # SIGALRM will end the process
    try:
        confine(memory_bytes)
    except (OSError, KeyError):
        os._exit(NO_SANDBOX)
    try:
        exec(compile(source, "<program>", "exec"), {})
    # a program that ends with any exception, SystemExit included, did not run to its end
    except BaseException:  # noqa: BLE001
        os._exit(FAILED)
    os._exit(PASSED)


if __name__ == "__main__":
    main()
