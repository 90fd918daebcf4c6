"""``python -m jeff``: the same as the command ``jeff``."""

from jeff.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
