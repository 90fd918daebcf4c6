"""Sweeps in a process of their own; prints checksums of what they gave.

sweep_process.py devices FOLDER      on 1 and 4 devices; killed after 7 units in FOLDER
sweep_process.py share FOLDER PORT I of 2 processes
"""

import os
import signal
import sys

import jax


def devices(folder):
    """The same on one device and on four, then a sweep that dies."""
    from support import sweep_case

    assert jax.local_device_count() == 4
    dies = sweep_case.Counted(7, lambda: os.kill(os.getpid(), signal.SIGKILL))
    mesh = jax.sharding.Mesh(jax.local_devices(), "devices")
    with sweep_case.compiling_once():
        for count in (1, 4):
            print(sweep_case.digest(sweep_case.run(devices=count)), flush=True)
        with sweep_case.compilations() as compiled:
            convolved = sweep_case.run_convolved("weights", devices=mesh)
        print(sweep_case.digest(convolved), compiled.count("jit(unit)"), flush=True)
        sweep_case.run(directory=folder, progress=dies, devices=4, chunk=5)


def share(folder, port, index):
    """One of two processes of a sweep that both keep in one folder, and of another."""
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=2, process_id=int(index),
        initialization_timeout=60,
    )  # fmt: skip
    from support import sweep_case  # makes arrays, and that must be after

    shown = sweep_case.Counted()
    with sweep_case.compiling_once():
        kept = sweep_case.run(directory=folder, progress=shown)
        stopped = sweep_case.run(stop=sweep_case.Enough(1e-9))
    print(sweep_case.digest(kept), sweep_case.digest(stopped), shown.steps, flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    {"devices": devices, "share": share}[sys.argv[1]](*sys.argv[2:])
