"""What a sweep's rows depend on: network files, the user's modules they import, arrays they read, installed packages.

A sweep that goes on compares their contents with those of the run before, so that old rows and new ones never mix.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import source_from_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pararev_hw.sweeps.file_watch import Watch
from pararev_hw.versions import installed_version

_listening: list[set[str]] = []  # each hears every file that is opened for reading
_hooked: list[bool] = []
_OTHERS = (Path("/proc"), Path("/sys"), Path("/dev"))


@contextlib.contextmanager
def files_read(networks: tuple[str, ...]) -> Iterator[set[str]]:
    """The absolute paths of files that are opened for reading meanwhile.

    Python tells what it opens itself; what libraries in C and child processes open (HDF5, TorchScript) is heard where
    the networks' own files lie. The text of a module that is loaded already tells nothing new: it is opened to show a
    line of it in a traceback.
    """
    if not _hooked:
        sys.addaudithook(_hear)  # which stays for as long as the interpreter runs
        _hooked.append(True)
    paths: set[str] = set()
    loaded = {os.path.abspath(file) for _, file in _module_files()}
    _listening.append(paths)
    watch = Watch({file.parent for file in network_files(networks)})
    try:
        yield paths
    finally:
        _listening[:] = [other for other in _listening if other is not paths]
        paths |= watch.stop()
        paths -= loaded


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _listening:
        return
    path, _, flags = arguments
    if isinstance(path, str | bytes) and isinstance(flags, int) and flags & os.O_ACCMODE == os.O_RDONLY:
        for paths in _listening:
            paths.add(os.path.abspath(os.fsdecode(path)))


def network_files(networks: tuple[str, ...]) -> tuple[Path, ...]:
    """The files that networks are read from: `net.py` of net.py:make, and whole files such as net.onnx and net.nir."""
    places = (n.rpartition(":")[0] if n.rpartition(":")[0].endswith(".py") else n for n in networks)
    return tuple(file for file in (Path(p).resolve() for p in places) if file.suffix and file.is_file())


def users_files(paths: set[str], networks: tuple[str, ...], apart: Path) -> tuple[Path, ...]:
    """The networks' own files, and of files that were read, and of modules beside or inside the networks, those that
    are the user's own, sorted.

    Installed packages, this package and what lies in the folder `apart` are left out.
    """
    installed = _installed(apart)
    _folder.cache_clear()  # a link may lead elsewhere than it did for an earlier sweep
    sources = {_source(path) for path in (*paths, *_modules(networks))} | set(network_files(networks))
    return tuple(sorted(p for p in sources if p is not None and p.is_file() and not _inside(p, installed)))


def package_versions(files: tuple[Path, ...], networks: tuple[str, ...]) -> dict[str, str]:
    """Installed package -> version, of those that the user's modules take something from or that networks lie in."""
    ours = {file.resolve() for file in files}
    modules = [m for m in list(sys.modules.values()) if _file_of(m) in ours] if ours else []
    places = [n.rpartition(":")[0] for n in networks if ":" in n]
    names = {place.partition(".")[0] for place in places if not place.endswith(".py")}
    names |= {top for module in modules for top in _imports(module)}
    names -= {*sys.stdlib_module_names, __name__.partition(".")[0]}
    distributions = metadata.packages_distributions() if names else {}
    return {d: installed_version(d) for name in sorted(names) for d in sorted(set(distributions.get(name, ())))}


def _imports(module: ModuleType) -> Iterator[str]:
    """Top-level names of the modules whose functions, classes or submodules a module holds."""
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str):
            yield name.partition(".")[0]


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def digests(files: tuple[Path, ...], beside: Path) -> dict[str, str]:
    """Path, as seen from the folder `beside`, -> SHA-256 of the file."""
    return {os.path.relpath(file, beside): _digest(file) for file in files}


def changed(recorded: Mapping[str, str], beside: Path) -> str | None:
    """What happened to the first of the recorded files that is no longer what it was."""
    for name, digest in recorded.items():
        file = Path(os.path.normpath(beside / name))
        if not file.is_file():
            return f"{file} is gone"
        if _digest(file) != digest:
            return f"{file} has changed"
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _source(path: str) -> Path | None:
    """The source file of a compiled module; any other file itself."""
    file = Path(path)
    if file.parent.name != "__pycache__":
        return _resolved(file)
    try:
        return _resolved(Path(source_from_cache(path)))
    except ValueError:  # another cache, such as that of compiled loops
        return None


def _resolved(file: Path) -> Path:
    """As `file.resolve()`, which looks at every folder above each of thousands of files."""
    return file.resolve() if file.is_symlink() else _folder(file.parent) / file.name


@functools.cache
def _folder(path: Path) -> Path:
    return path.resolve()


def _installed(apart: Path) -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    ours = Path(__file__).resolve().parent.parent
    prefixes = (Path(sys.prefix).resolve(),) if sys.prefix != sys.base_prefix else ()
    return (*(Path(sysconfig.get_path(n)).resolve() for n in names), *prefixes, ours, apart.resolve(), *_OTHERS)


def _inside(file: Path, folders: tuple[Path, ...]) -> bool:
    return "site-packages" in file.parts or any(folder in file.parents for folder in folders)


def _modules(networks: tuple[str, ...]) -> Iterator[str]:
    """Files of modules that an earlier import may have loaded: beside a network's file, or inside its package."""
    places = [n.rpartition(":")[0] for n in networks if ":" in n]
    folders = {Path(p).resolve().parent for p in places if p.endswith(".py")}
    packages = {p.partition(".")[0] for p in places if not p.endswith(".py")}
    for name, file in _module_files():
        if name.partition(".")[0] in packages or (folders and not folders.isdisjoint(Path(file).resolve().parents)):
            yield os.path.abspath(file)


def _module_files() -> Iterator[tuple[str, str]]:
    """Name and file of every module that is loaded from one."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield name, file
