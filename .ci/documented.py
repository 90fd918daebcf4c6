"""Fails if a public symbol has no docstring or is missing from the built reference.

Public is what the ``__all__`` of a package (or of a module directly in ``jeff``) names;
it must be in the inventory ``HTML/objects.inv``. What deeper modules export needs a
docstring only. Usage: ``documented.py HTML``.
"""

import importlib
import inspect
import pathlib
import pkgutil
import sys

from sphinx.util.inventory import InventoryFile

PACKAGES = ("jeff", "hwsim", "pallas_kernels")


def modules():
    """Every module of the three packages, with whether it is a public place."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield package, True
        for info in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not info.name.endswith("__main__"):
                public = info.ispkg or info.name.count(".") == 1
                yield importlib.import_module(info.name), public


def described(inventory: pathlib.Path) -> set[int]:
    """Identities of the objects that the reference describes."""
    found = set()
    data = InventoryFile.loads(inventory.read_bytes(), uri="").data
    for kind, entries in data.items():
        if not kind.startswith("py:"):
            continue
        for name in entries:
            found.add(id(resolve(name)))
    return found


def resolve(name: str):
    """The object with a dotted name, or ``None``.

    A function may have the name of the module it comes from (``jeff.program.sites``);
    the attribute wins, as it does for users.
    """
    first, *rest = name.split(".")
    thing = importlib.import_module(first)
    for part in rest:
        if not hasattr(thing, part) and inspect.ismodule(thing):
            importlib.import_module(f"{thing.__name__}.{part}")
        thing = getattr(thing, part, None)
    return thing


def main(html: str) -> int:
    """Prints what is missing and returns the exit code."""
    known = described(pathlib.Path(html) / "objects.inv")
    problems, count = [], 0
    for module, public in modules():
        if not hasattr(module, "__all__"):
            problems.append(f"{module.__name__} has no __all__")
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if not (inspect.isroutine(thing) or inspect.isclass(thing)):
                continue  # constants and type aliases cannot carry a docstring
            count += 1
            if not inspect.getdoc(thing):
                problems.append(f"{module.__name__}.{name} has no docstring")
            if public and id(thing) not in known:
                problems.append(f"{module.__name__}.{name} is not in the reference")
    print("\n".join(problems) or f"{count} public symbols documented")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
