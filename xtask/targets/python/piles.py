"""Threads that pile up, memory that grows, and a healthy twin of both, on CPython.

    leak      ten threads a second wait for an event that nobody sets
    grow      2.5 MiB a second are remembered
    healthy   a pool of 24 threads that takes jobs

At most 400 threads are started.
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

MOST = 400
shipped = threading.Event()
everything = []


def await_shipping():
    held = bytearray(64 << 10)
    shipped.wait()
    return len(held)


def remember():
    everything.append(bytearray(b"r" * (256 << 10)))


def main(mode):
    pool = ThreadPoolExecutor(24, thread_name_prefix="worker") if mode == "healthy" else None
    print("ready", flush=True)
    for turn in range(4000):
        if mode == "leak" and turn < MOST:
            threading.Thread(target=await_shipping, name=f"orders-{turn}", daemon=True).start()
        elif mode == "grow" and turn < MOST:
            remember()
        elif pool:
            for _ in range(48):
                pool.submit(time.sleep, 0.001)
        time.sleep(0.1)


main(sys.argv[1] if len(sys.argv) > 1 else "")
