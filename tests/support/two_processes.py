"""Two real processes that find each other on this machine."""

import concurrent.futures
import socket

__all__ = ["run_both"]


def run_both(run):
    """What ``run(port, index)`` gives for the indices 0 and 1, at the same time.

    The port was free a moment ago; the first process is to listen there. If a process
    does not end, what became of the other is part of the error: it may have died, and
    the one that waited for it is not the one that failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run, port, index) for index in (0, 1)]
    ended = [future.exception() or future.result() for future in running]
    for one in ended:
        if isinstance(one, Exception):
            raise RuntimeError(f"of two processes: {ended}") from one
    return ended
