"""``python demo_main.py run demo ...``: the command line with the demo registry."""

import signal
import sys

from jeff.cli import System, main

if __name__ == "__main__":
    # A job started in the background ignores Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    demo = System(
        name="demo",
        title="Demo",
        summary="Stands in for a real system.",
        paper="",
        entry="demo_study:STUDY",
    )
    quick = System(
        name="quick", title="Quick", summary="", paper="", entry="quick_study:STUDY"
    )
    raise SystemExit(main(sys.argv[1:], registry=(quick, demo)))
