"""What the Linux kernel takes away from a process: namespaces, files, system calls, capabilities."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_MACHINE = platform.machine()

# --- namespaces and mounts: <linux/sched.h>, <linux/mount.h> ---

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
CLONE_THREAD = 0x0001_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x4_0000
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_SECCOMP, PR_SET_SECCOMP = 1, 4, 21, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SECCOMP_MODE_FILTER = 2

TEMPORARY = "/tmp"  # the candidate's folder, in the private root
OPEN_FILES = 64  # of a worker and its candidates at most
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def _call(function: str, *arguments: object) -> int:
    """A function of the C library; OSError where it returns -1."""
    result: int = getattr(_LIBC, function)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


def _syscall(name: str, *arguments: object) -> int:
    return _call("syscall", ctypes.c_long(numbers()[name]), *arguments)


def prctl(option: int, value: int) -> int:
    return _call("prctl", option, *(ctypes.c_ulong(x) for x in (value, 0, 0, 0)))


def enter_namespaces() -> None:
    """New mount, network, IPC, host name and, for the children, PID namespaces; without root a user namespace too.

    The user namespace maps this user alone, to itself.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    _call("unshare", flags if uid == 0 else flags | CLONE_NEWUSER)
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def enter_private_root(readable: Sequence[str], temporary_bytes: int) -> None:
    """Leave the host's files: a read-only root with the ``readable`` folders, three devices and an empty folder /tmp.

    The empty folder is a tmpfs that anybody may write to, of at most ``temporary_bytes`` and 1024 files.
    """
    root = next(p for p in ("/mnt", "/media", "/srv", "/sys") if Path(p).is_dir() and not _holds(p, readable))
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for path in readable:
        target = Path(root + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_symlink():
            target.symlink_to(Path(path).readlink())
        else:
            target.mkdir(exist_ok=True)
            _mount(path, target, None, MS_BIND | MS_REC)
    Path(root + "/dev").mkdir()
    for device in DEVICES:
        Path(root + device).touch()
        _mount(device, root + device, None, MS_BIND)
    Path(root + TEMPORARY).mkdir()
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    _syscall("mount_setattr", AT_FDCWD, root.encode(), AT_RECURSIVE, attributes, size)
    options = f"mode=1777,size={temporary_bytes},nr_inodes=1024"
    _mount("tmpfs", root + TEMPORARY, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chdir(root)
    _syscall("pivot_root", b".", b".")  # the old root now lies on top of the new one
    _call("umount2", b".", MNT_DETACH)


def _holds(folder: str, paths: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for path in paths)


def _mount(source: str, target: str | Path, kind: str | None, flags: int, options: str = "") -> None:
    encoded = (source.encode(), os.fsencode(target), kind and kind.encode())
    _call("mount", *encoded, ctypes.c_ulong(flags), options.encode())


def readable() -> list[str]:
    """The folders that Python's library needs: its own and the system's shared libraries."""
    prefixes = [os.path.realpath(prefix) for prefix in (sys.base_prefix, sys.base_exec_prefix)]
    folders = [prefix.rstrip("/") + name for prefix in [*prefixes, "/usr", "/"] for name in ("/lib", "/lib64")]
    return [folder for folder in dict.fromkeys(folders) if Path(folder).is_dir()]


def drop_capabilities() -> None:
    """Give up what a new user namespace gave; what a change from root to another user takes anyway."""
    _call("capset", struct.pack("Ii", 0x2008_0522, 0), bytes(24))


# --- Landlock: <linux/landlock.h> ---

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # version → how many rights it knows


def landlock_version() -> int:
    """0 where the kernel has no Landlock."""
    try:
        return _syscall("landlock_create_ruleset", None, ctypes.c_size_t(0), 1)
    except (OSError, KeyError):
        return 0


def landlock(readable: Iterable[str]) -> None:
    """From now on: read below the ``readable`` folders, use three devices, open no other file, trace no other process.

    Where the kernel knows how (versions 4 and 6): no TCP, no signals to processes outside. Like
    `filter_system_calls` it needs PR_SET_NO_NEW_PRIVS first and cannot be undone.
    """
    version = landlock_version()
    attributes = [(1 << _FILE_RIGHTS[min(version, 5)]) - 1]
    attributes += [3] if version >= 4 else []
    attributes += [3] if version >= 6 else []
    packed = struct.pack(f"{len(attributes)}Q", *attributes)
    ruleset = _syscall("landlock_create_ruleset", packed, ctypes.c_size_t(len(packed)), 0)
    rules = [(path, _EXECUTE | _READ_FILE | _READ_DIR) for path in readable]
    for path, rights in [*rules, *((device, _READ_FILE | _WRITE_FILE) for device in DEVICES)]:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _syscall("landlock_add_rule", ruleset, 1, struct.pack("=Qi", rights, beneath), 0)
        os.close(beneath)
    _syscall("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)


# --- seccomp: <linux/seccomp.h>, <linux/filter.h> ---

_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _NOT_IMPLEMENTED = 0x7FFF_0000, 0x8000_0000, 0x0005_0000 | 38
_OWN = 0x7EED_BEEF  # in the filter, before it is known
_X32 = 0x4000_0000  # the bit of x86_64's second set of numbers
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

# fmt: off
# What a Python program needs that computes, reads its input, prints, uses threads and its temporary folder.
PERMITTED: dict[str, tuple[int | None, int | None]] = {  # number on x86_64, on aarch64
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "lseek": (8, 62), "open": (2, None), "openat": (257, 56), "close": (3, 57),
    "close_range": (436, 436), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None),
    "pipe2": (293, 59), "sendfile": (40, 71), "copy_file_range": (326, 285), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "getdents64": (217, 61), "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83),
    "ftruncate": (77, 46), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "statfs": (137, 43),
    "fstatfs": (138, 44), "umask": (95, 166), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "eventfd2": (290, 19), "socketpair": (53, 199), "sendto": (44, 206),
    "recvfrom": (45, 207), "shutdown": (48, 210), "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226),
    "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133),
    "rt_sigpending": (127, 136), "sigaltstack": (131, 132), "pause": (34, None), "alarm": (37, None),
    "setitimer": (38, 103), "getitimer": (36, 102), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getpgid": (121, 155),
    "getpgrp": (111, None), "getsid": (124, 156), "getgroups": (115, 158), "getresuid": (118, 148),
    "getresgid": (120, 150), "getrlimit": (97, 163), "setrlimit": (160, 164), "getrusage": (98, 165),
    "times": (100, 153), "sysinfo": (99, 179), "uname": (63, 160), "getcpu": (309, 168), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None),
    "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293), "set_tid_address": (218, 96),
    "membarrier": (324, 283), "getrandom": (318, 278), "wait4": (61, 260), "waitid": (247, 95),
    "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94),
}
# Permitted for some arguments alone, or used by this module.
RESTRICTED: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220), "fcntl": (72, 25), "ioctl": (16, 29), "kill": (62, 129), "tgkill": (234, 131),
    "prlimit64": (302, 261), "pivot_root": (155, 41), "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
}
# fmt: on
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)  # all but what makes the kernel send signals or enlarges pipes
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIO(N)CLEX


@functools.cache
def numbers() -> dict[str, int]:
    """The system calls of this machine's architecture by name; empty for one that is not in the tables."""
    if _MACHINE not in _ARCHITECTURES:
        return {}
    column = list(_ARCHITECTURES).index(_MACHINE)
    both = {**PERMITTED, **RESTRICTED}
    return {name: number for name, row in both.items() if (number := row[column]) is not None}


def has_seccomp() -> bool:
    """Whether the kernel can filter system calls, and this module knows their numbers here."""
    try:
        return bool(numbers()) and prctl(PR_GET_SECCOMP, 0) >= 0
    except OSError:
        return False


def filter_system_calls() -> None:
    """From now on no system call but the permitted ones: no new process, no other program, no socket, no tracing.

    Threads are allowed, signals go to the own process alone; all else fails as "not implemented", which the
    C library takes for an older kernel.
    """
    program = system_call_filter().replace(struct.pack("I", _OWN), struct.pack("I", os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: unsigned short len; struct sock_filter *filter
    pointer = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    _call("prctl", PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), pointer)


@functools.cache
def system_call_filter() -> bytes:
    """The filter in classic BPF: struct sock_filter {code, jump if true, jump if false, operand} for each step.

    Where the process compares with its own number it has _OWN.
    """
    known = numbers()
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[_MACHINE]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if _MACHINE == "x86_64":
        steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _NOT_IMPLEMENTED)]
    one_of = {"fcntl": (1, _FCNTL), "ioctl": (1, _IOCTL), "kill": (0, (_OWN,)), "tgkill": (0, (_OWN,))}
    one_of |= {"prlimit64": (0, (0, _OWN))}
    for name, (argument, values) in one_of.items():
        tests = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
        steps += _when(known[name], argument, tests)
    steps += _when(known["clone"], 0, [(_ANY_BIT, 1, 0, CLONE_THREAD)])
    permitted = [known[name] for name in PERMITTED if name in known]
    steps += [(_EQUAL, len(permitted) - i, 0, number) for i, number in enumerate(permitted)]
    steps += [(_RETURN, 0, 0, _NOT_IMPLEMENTED), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _when(number: int, argument: int, tests: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """For the call of this number: allow it where a test of the argument's low half jumps past its refusal."""
    body = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), *tests]
    body += [(_RETURN, 0, 0, _NOT_IMPLEMENTED), (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]
