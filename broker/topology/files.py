"""Several files as one: what a file includes, and overlays for environments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from broker.topology.references import resolve
from broker.topology.source import DataPath, Position, Source, read_yaml

INCLUDE = "include"
# How deep names stand below a section: two files may both have `queues`, but not the same queue.
_DEPTH = {"federation": 2, "parameters": 2}
# A file that is included may say whose it is, for editors.
_SAME = frozenset({"version", "name"})


def read_files(
    path: str | Path,
    *,
    overlays: Iterable[str | Path] = (),
    environ: Mapping[str, str] = os.environ,
) -> tuple[dict[str, Any], Source]:
    """Read a topology file, the files that it includes, and overlays over it.

    Args:
        path: the file.
        overlays: files that are laid over it, the last one on top: mappings are merged, anything
            else is replaced, and null removes what stands there.
        environ: the process's environment, for the paths of included files.

    Returns:
        The data, and where each key and value stands in which file.

    Raises:
        TopologyError: a file cannot be read, is not YAML or no mapping, includes itself, has a
            name that another has, or removes what is not there.
    """
    data, source = _Including(environ).read(Path(path))
    for overlay in overlays:
        above, above_source = _Including(environ).read(Path(overlay), overlay=True)
        gone = _lay(above, data, (), above_source)
        for places, above_places in (
            (source.keys, above_source.keys),
            (source.values, above_source.values),
        ):
            for each in [each for each in places if _is_under(each, gone)]:
                del places[each]
            for each, position in above_places.items():
                places.setdefault(each, position)
    return data, source


class _Including:
    """Reads one file with all that it includes."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.done: set[Path] = set()
        self.open: list[Path] = []

    def read(self, path: Path, *, overlay: bool = False) -> tuple[dict[str, Any], Source]:
        data, source = read_yaml(path)
        if data is None and overlay:
            data = {}
        if not isinstance(data, dict):
            kind = "a list" if isinstance(data, list) else "a single value"
            what = "empty" if data is None else kind
            begins = "" if self.open else "; it begins with `version: 1` and `name: …`"
            raise Position(source.file).error(f"the file is {what}, not a mapping{begins}")
        self.open.append(path.resolve())
        for index, (name, position) in enumerate(_included(data, source)):
            following = path.parent / resolve(name, environ=self.environ, position=position)
            resolved = following.resolve()
            if resolved in self.open:
                files = " includes ".join(
                    each.name for each in [*self.open[self.open.index(resolved) :], resolved]
                )
                raise position.error(f"the files include each other in a circle: {files}")
            if not following.is_file():
                raise position.error(f"there is no file {following} to include")
            # Two files may both need a third.
            if resolved not in self.done:
                inner, inner_source = self.read(following)
                _join(inner, data, (), inner_source, source)
                _add_places(inner_source, source)
            source.keys.pop((INCLUDE, index), None)
        self.open.pop()
        self.done.add(path.resolve())
        for places in (source.keys, source.values):
            places.pop((INCLUDE,), None)
        return data, source


def _included(data: dict[str, Any], source: Source) -> list[tuple[str, Position]]:
    """Take out the names of the included files, with their places."""
    names = data.pop(INCLUDE, None)
    if isinstance(names, str):
        return [(names, source.value((INCLUDE,)))]
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise source.value((INCLUDE,)).error(f"{INCLUDE}: a list of file names is expected")
    return [(name, source.value((INCLUDE, index))) for index, name in enumerate(names)]


def _join(
    extra: dict[str, Any],
    data: dict[str, Any],
    path: DataPath,
    extra_source: Source,
    source: Source,
) -> None:
    """Add what an included file says; what stands in both is an error that names both places."""
    for key, value in extra.items():
        here = (*path, key)
        if data.get(key) is None:
            data[key] = value
            continue
        depth = _DEPTH.get(str(here[0]), 1)
        if isinstance(value, dict) and isinstance(data[key], dict) and len(here) <= depth:
            _join(value, data[key], here, extra_source, source)
        elif value is not None and not (here[0] in _SAME and value == data[key]):
            raise extra_source.key(here).error(
                f"{key!r} stands here a second time; the first is at {source.key(here)}"
            )


def _add_places(extra: Source, source: Source) -> None:
    for places, added in ((source.keys, extra.keys), (source.values, extra.values)):
        for each, position in added.items():
            places.setdefault(each, position)


def _lay(
    above: dict[str, Any], data: dict[str, Any], path: DataPath, source: Source
) -> set[DataPath]:
    """Lay an overlay over data; return the paths below which nothing stands as it stood."""
    gone: set[DataPath] = set()
    for key, value in above.items():
        here = (*path, key)
        if value is None:
            if key not in data:
                raise source.key(here).error(
                    f"there is no {key!r} to remove; write {{}} for one without settings"
                )
            del data[key]
            gone.add(here)
        elif isinstance(value, dict) and isinstance(data.get(key), dict):
            gone |= _lay(value, data[key], here, source)
        else:
            data[key] = value
            gone.add(here)
    return gone


def _is_under(path: DataPath, prefixes: set[DataPath]) -> bool:
    return any(path[:length] in prefixes for length in range(1, len(path) + 1))
