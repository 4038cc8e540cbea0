"""A process asks the kernel once for the memory of large messages, not for each anew."""

from __future__ import annotations

import platform
import subprocess
import sys

ROUNDS = 10
PAGES = 8 * 2**20 // 4096
# There and back: encoded, and joined from what was read of the socket.
WORK = f"""
import resource
import numpy as np
from broker.body import encode

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    body = encode([np.ones(2**20)])
    parts = [body.content[at : at + 2**17] for at in range(0, 2**23, 2**17)]
    del body
    return b"".join(parts)

work()
before = faults()
for _ in range({ROUNDS}):
    work()
print(faults() - before)
"""


def test_large_messages_take_their_memory_from_the_kernel_once() -> None:
    assert platform.libc_ver()[0] == "glibc"
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert int(done.stdout) < ROUNDS * PAGES / 10
