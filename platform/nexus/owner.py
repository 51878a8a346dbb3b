"""Which process something belongs to, and whether that process is still there.

An owner is written as `place/pid/birth/number`. The place is one boot of one machine and one namespace of
process ids: only there do the other two say anything.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import uuid
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_BIRTH = 19  # the field of /proc/PID/stat after the name: when the process began, in ticks since the boot


def new_owner() -> str:
    """A name of its own for a part of this process."""
    return f"{_place()}/{os.getpid()}/{_birth(os.getpid()) or ''}/{uuid.uuid4().hex[:8]}"


def is_alive(owner: str) -> bool | None:
    """Whether the process of `owner` is there; None when that cannot be known from here."""
    place, _, rest = owner.partition("/")
    pid, _, rest = rest.partition("/")
    birth = rest.partition("/")[0]
    if not birth or not pid.isdecimal() or place != _place():
        return None
    return _birth(int(pid)) == birth


@functools.cache
def _place() -> str:
    try:
        named = _BOOT.read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:  # a system that does not tell: then no process is judged by its id
        named = uuid.uuid4().hex
    return hashlib.blake2b(f"{socket.gethostname()} {named}".encode(), digest_size=8).hexdigest()


def _birth(pid: int) -> str | None:
    """None where there is no such process, or where nothing is told of it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *others = stat.rpartition(")")[2].split()
    return None if state in "ZX" else others[_BIRTH - 1]
