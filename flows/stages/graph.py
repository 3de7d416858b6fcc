"""DVC's stage graph, asked of DVC itself: which stages a target needs, and in which order."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from stochca.errors import UserError

if TYPE_CHECKING:
    from networkx import DiGraph

DEFAULT_TARGETS = ("compare",)


def needed_stages(targets: Sequence[str]) -> dict[str, list[str]]:
    """The stages that `targets` need, they included, every one with those before it that it needs itself.

    A target is a stage such as ``stochca@all-0``, or a group such as ``baseline``, which means all its items.

    Raises:
        UserError: a target is no stage, or dvc.yaml is not valid; the sentence names the nearest stages.
    """
    import networkx

    graph = _graph()
    wanted = {name for target in targets for name in _matching(target, graph)}
    needed = graph.subgraph(wanted.union(*(networkx.descendants(graph, name) for name in wanted)))
    position = {name: place for place, name in enumerate(graph)}  # in dvc.yaml
    order = networkx.lexicographical_topological_sort(needed.reverse(), key=position.__getitem__)
    return {name: sorted(needed.successors(name), key=position.__getitem__) for name in order}


def changed_stages(targets: Sequence[str]) -> dict[str, list[str]]:
    """Which of the stages that `targets` need are not up to date, each with DVC's reasons in plain words.

    Raises:
        UserError: a target is no stage, or dvc.yaml is not valid.
    """
    from dvc.repo import Repo

    needed_stages(targets)
    with Repo() as repo:
        status: dict[str, list[Any]] = repo.status(targets=list(targets), with_deps=True)
    return {
        name: [reason for entry in entries for reason in _reasons(entry)] for name, entries in status.items()
    }


def _reasons(entry: Any) -> Iterable[str]:
    """``{"changed deps": {"params.yaml": {"training.lr": "modified"}}}`` as ``training.lr is modified``."""
    if isinstance(entry, str):
        yield entry
        return
    for files in entry.values():
        if isinstance(files, str):
            yield files
            continue
        for path, change in files.items():
            changes = change if isinstance(change, dict) else {path: change}
            yield from (f"{name} is {what}" for name, what in changes.items())


def _graph() -> "DiGraph":
    """Names of stages; an edge points from a stage to one that it needs."""
    import networkx
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return networkx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
    except NotDvcRepoError:
        raise UserError("there is no DVC project here; run from the folder that holds dvc.yaml") from None
    except DvcException as error:
        raise UserError(
            f"dvc.yaml can't be used: {' '.join(str(error).split())}; see: dvc stage list"
        ) from None


def _matching(target: str, graph: "DiGraph") -> list[str]:
    found = [name for name in graph if name == target or name.split("@")[0] == target]
    if not found:
        names = sorted({*graph, *(name.split("@")[0] for name in graph)})
        nearest = difflib.get_close_matches(target, names, n=3, cutoff=0.4) or names
        raise UserError(f"targets: dvc.yaml has no stage {target!r}; did you mean {', '.join(nearest)}?")
    return found
