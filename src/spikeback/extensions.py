"""Modules from outside the package, imported so that what they add is known by name: neurons, losses, formats, ..."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from spikeback.errors import UsageError
from spikeback.files import as_path

LOADED: set[str] = set()


def load(name: str) -> None:
    """Import a file, `my_loss.py`, or a module by its dotted name, `my_package.losses`; the current folder comes first.

    Raises:
        UsageError: there is none, or it fails.
    """
    if name in LOADED:
        return
    try:
        with _current_folder():
            _run(as_path(name)) if name.endswith(".py") else import_module(name)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's module raises
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"import: no module {name!r}; give a file, e.g. my_loss.py, or a dotted name") from error
        raise UsageError(f"import: {name} fails: {type(error).__name__}: {error}") from error
    LOADED.add(name)


def _run(path: Path) -> None:
    """Import a file under its own name, so that what it defines can be sent to other processes."""
    if not path.is_file():
        raise UsageError(f"import: no file {path}")
    if path.stem in sys.modules:
        raise UsageError(f"import: {path} has the name of a module that is loaded, {path.stem}; rename the file")
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


@contextmanager
def _current_folder() -> Iterator[None]:
    """Within, the current folder is searched for modules, as `python -m` does."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.remove(str(Path.cwd()))
