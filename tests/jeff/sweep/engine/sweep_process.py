"""Sweeps in a process of their own; prints checksums of what they gave.

sweep_process.py devices FOLDER      on 1 and 4 devices; killed after 7 units in FOLDER
sweep_process.py share FOLDER PORT I of 2 processes
sweep_process.py network FOLDER      ResNet-8 on 1 and 4 devices; killed after 2 units
sweep_process.py resume FOLDER       what it left, to its end
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
        for target in ("weights", "features"):
            with sweep_case.compilations() as compiled:
                convolved = sweep_case.run_convolved(target, devices=mesh)
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
        convolved = map(sweep_case.run_convolved, ("weights", "features"))
        results = [kept, stopped, *convolved]
    print(*map(sweep_case.digest, results), shown.steps, flush=True)
    jax.distributed.shutdown()


def network(folder):
    """Compiled as users compile: whole in one folder; one that dies, in another."""
    from support import sweep_case, sweep_network

    assert not jax.config.read("jax_disable_most_optimizations")
    assert jax.local_device_count() == 4
    dies = sweep_case.Counted(2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with sweep_case.compiling_once():
        alone = sweep_network.run_network(directory=f"{folder}/whole", chunk=1)
        print(sweep_case.digest(alone), flush=True)
        print(sweep_case.digest(sweep_network.run_network(devices=4)), flush=True)
        sweep_network.run_network(
            directory=f"{folder}/killed", progress=dies, devices=4, chunk=5
        )


def resume(folder):
    """Goes on with the sweep that was killed, with other chunks, on one device."""
    from support import sweep_case, sweep_network

    again = sweep_network.run_network(directory=f"{folder}/killed", chunk=3)
    assert not again.stats["short"].any()
    sums = again.stats["sum"].reshape(sweep_network.UNITS, -1)
    assert len({row.tobytes() for row in sums}) == sweep_network.UNITS  # faults differ
    print(sweep_case.digest(again), flush=True)


if __name__ == "__main__":
    commands = {
        "devices": devices, "share": share, "network": network, "resume": resume
    }  # fmt: skip
    commands[sys.argv[1]](*sys.argv[2:])
