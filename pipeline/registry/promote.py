"""Champion against challenger: the best trained model becomes the champion if it is shown to be better.

`stochca promote`. Two models are compared, not their methods: the interval covers the test images alone, and
another seed of the same method may do otherwise. The models are versions in MLflow's registry; the champion
is the one with that alias.
"""

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline.config.params import Params
from pipeline.config.sections import Compare
from pipeline.images.prepared import Prepared
from pipeline.images.seen_images import FILE, group_was_seen, read_seen, was_seen
from pipeline.images.sizes import Sides
from pipeline.registry.versions import (
    CHALLENGER,
    CHAMPION,
    ROLLED_BACK,
    WEIGHTS,
    can_be_registered,
    crown,
    load_version,
    register,
    registry_errors,
    same_weights,
    version_called,
    version_of,
    weights_of,
)
from pipeline.report.contributions import contributions
from pipeline.report.intervals import Difference, estimate_metric, judge
from pipeline.report.results import Run, read_inputs, read_runs
from pipeline.tracking.server import connect
from pipeline.training.saved_model import TrainedModel
from stochca.backbones.card import BackboneCard
from stochca.compute.devices import default_device
from stochca.config.selection import SELECTIONS, Selection
from stochca.errors import UserError
from stochca.evaluation import predict

TARGET = "all"  # models for use; those of held-out domains are for science
# The tags of a version that was decided about: how, why, and beside which champion.
OUTCOME, REASON, AGAINST = "promotion", "promotion_reason", "promotion_against"
HEADING = "## Promotion"


@dataclass(frozen=True)
class Contender:
    """A registered version, its model, and the hashes of the images that it has seen, and of their groups."""

    version: ModelVersion
    model: TrainedModel
    seen: np.ndarray

    @property
    def title(self) -> str:
        return title_of(self.version)


def title_of(version: ModelVersion) -> str:
    tags = version.tags
    return f"version {version.version} ({tags.get('method', '?')}, seed {tags.get('seed', '?')})"


@dataclass(frozen=True)
class Decision:
    """Whether a challenger became the champion, and why."""

    promoted: bool
    reason: str  # a sentence
    difference: Difference | None = None  # how much better than the champion; None: not compared
    test_images: int = 0  # that both classified
    left_out: int = 0  # test images of groups that one of them had been trained or selected on
    champion: str | None = None  # versions
    challenger: str | None = None

    @property
    def outcome(self) -> str:
        return "promoted" if self.promoted else "refused"

    @property
    def markdown(self) -> str:
        """The sentence, under it the numbers as a table."""
        lines = [HEADING, "", f"**{'Promoted' if self.promoted else 'Not promoted'}**: {self.reason}."]
        if self.difference is not None:
            lines += [
                "",
                "| challenger | champion | difference | low | high | p | test images | left out |",
                "|---|---|---|---|---|---|---|---|",
                f"| version {self.challenger} | version {self.champion} | {self.difference.mean:+.4f} "
                f"| {self.difference.low:+.4f} | {self.difference.high:+.4f} | {self.difference.p_value:.4f} "
                f"| {self.test_images} | {self.left_out} |",
            ]
        return "\n".join(lines)


def promote(params: Params) -> Decision:
    """Register the challenger, compare it with the champion on today's test images, and move the alias.

    Running it again changes nothing more.

    Raises:
        UserError: runs are missing or not of one kind, MLflow can't be reached, or lacks a model. Where that
            is the champion's, the challenger has been registered.
    """
    connect(params.tracking.experiment)
    runs, prepared, backbone = read_inputs(params)
    run = choose(params, runs)
    client, name = MlflowClient(), params.promotion.model
    with registry_errors():
        champion = version_called(client, name, CHAMPION)
        if champion is not None and champion.run_id == run.description["mlflow_run_id"]:
            return Decision(False, f"version {champion.version} is the champion already; nothing to do")
        if champion is None:
            check_first(client, name)
        crowned = None if champion is None else _crowned(client, champion, run, prepared)
        if crowned is not None:
            check_same_task(name, crowned, prepared)
            check_sizes(crowned, backbone)
        version = _challenge(client, name, run)
        challenger = Contender(version, load_version(version), seen_by(client, version))
        decision = decide(
            challenger,
            crowned,
            prepared,
            params.compare,
            params.protocol.selection,
            rolled_back=note_weights(client, challenger, crowned),
        )
        record(client, version, decision)
        if decision.promoted:
            crown(client, name, str(version.version))
        conclude(client, version, decision, champion)  # last: what is concluded is not decided again
    return decision


def check_first(client: MlflowClient, name: str) -> None:
    """See that the registered model `name` has no champion because none was decided yet.

    Raises:
        UserError: it had one, which was deleted in MLflow, or its alias was.
    """
    versions = client.search_model_versions(f"name = '{name}'")
    decided = sorted(int(version.version) for version in versions if OUTCOME in version.tags)
    if decided:
        raise UserError(
            f"the registered model {name!r} has lost its champion, or the alias {CHAMPION!r}, so that a new "
            f"model would be compared with nothing; say which of {', '.join(map(str, decided))} it is: "
            f"stochca rollback --to {decided[-1]}"
        )


def check_same_task(name: str, champion: Contender, prepared: Prepared) -> None:
    """See that the champion of the registered model `name` is one of this project's kind.

    Classes and images may have come or gone since it was trained, but not both of the classes, nor all of the
    images; and the dataset is the same.

    Raises:
        UserError: it is not: another project uses the same name.
    """
    its, ours = set(champion.model.classes), set(prepared.classes)
    check_same_images(name, champion.version, champion.seen, prepared)
    if not (its <= ours or ours <= its):
        found = f"tells {_listed(its)} apart, and this project {_listed(ours)}"
        raise _another_projects(name, champion.version, found)


def check_same_images(name: str, champion: ModelVersion, seen: np.ndarray, prepared: Prepared) -> None:
    """As `check_same_task`, by what is known without the champion's model: `seen` may be empty."""
    dataset = champion.tags.get("dataset", prepared.manifest["dataset"])
    everything = prepared.select(range(len(prepared.table)))
    if dataset != prepared.manifest["dataset"]:
        found = f"was trained on {dataset}, and this project's images are {prepared.manifest['dataset']}"
    elif seen.size and not was_seen(everything, seen).any():
        found = "has seen none of the images that are prepared here"
    else:
        return
    raise _another_projects(name, champion, found)


def _another_projects(name: str, champion: ModelVersion, found: str) -> UserError:
    return UserError(
        f"the registered model {name!r} is another project's: its champion, {title_of(champion)}, {found}; "
        "set promotion.model in params.yaml to a name of this project's own"
    )


def check_sizes(champion: Contender, backbone: BackboneCard) -> None:
    """See that the prepared images, which are as large as models of this backbone need, suit the champion.

    Raises:
        UserError: it has learned from larger ones, and would be shown these blown up.
    """
    card = champion.model.card
    needed = Sides.of(card["image_size"], card.get("resize")).stored
    stored = Sides.of(backbone.image_size, backbone.resize).stored
    if needed > stored:
        raise UserError(
            f"the champion, {champion.title}, sees {card['image_size']} pixels and needs images of {needed}, "
            f"but for image_size {backbone.image_size} they are prepared with {stored} at most, so that the "
            "two can't be compared; make image_size in params.yaml what the champion has and train again, or "
            "set promotion.model to a new name, which begins with models of this size"
        )


def note_weights(client: MlflowClient, challenger: Contender, champion: Contender | None) -> str | None:
    """Mark versions with the digest of their weights, by which another run's are known to be the same.

    These two, and those that an earlier version of stochca has rolled back without a mark.

    Returns:
        The version with the challenger's weights that was rolled back, if there is one.
    """
    name = challenger.version.name
    for each in filter(None, (challenger, champion)):
        client.set_model_version_tag(name, each.version.version, WEIGHTS, each.model.card["weights_sha256"])
    for version in client.search_model_versions(f"name = '{name}'"):
        unmarked = ROLLED_BACK in version.tags and WEIGHTS not in version.tags
        if unmarked and (digest := weights_of(version)) is not None:
            client.set_model_version_tag(name, version.version, WEIGHTS, digest)
    same = same_weights(client, name, str(challenger.version.version))
    return next((str(version.version) for version in same if ROLLED_BACK in version.tags), None)


def _listed(classes: Collection[str]) -> str:
    first = sorted(classes)[:3]
    return ", ".join([*first, *(["..."] if len(classes) > len(first) else [])])


def is_decided(params: Params) -> bool:
    """Whether there is a champion, and no model that could challenge it but has not yet.

    Raises:
        UserError: runs are missing, or MLflow can't be reached.
    """
    connect(params.tracking.experiment)
    client, name = MlflowClient(), params.promotion.model
    with registry_errors():
        champion = version_called(client, name, CHAMPION)
    if champion is None:
        return False
    runs = read_runs(params.protocol)
    try:
        run = choose(params, runs)
    except UserError:  # none of what params.yaml trains can
        return True
    with registry_errors():
        version = version_of(client, name, run.description["mlflow_run_id"])
        if version is None:
            return not can_be_registered(client, run)
    return str(champion.version) in (str(version.version), version.tags.get(AGAINST))


def choose(params: Params, runs: Sequence[Run]) -> Run:
    """The best seed of `promotion.method`; `best` is the method with the best mean over seeds.

    Of equals, the first in the order of params.yaml. Where protocol.refit left no validation images, it is
    the first seed: choosing one on the test images would spoil them.

    Raises:
        UserError: nothing was trained on all domains, or `best` has no validation images to choose on.
    """
    candidates = [run for run in runs if run.target == TARGET]
    if not candidates:
        raise UserError(
            f"no model can be promoted: protocol.targets in params.yaml lacks {TARGET!r}; add it and train"
        )
    by_method = {
        method: [run for run in candidates if run.method == method] for method in params.protocol.methods
    }
    method, selection = params.promotion.method, params.protocol.selection
    validation, merit = f"validation_{selection}", SELECTIONS[selection].merit
    if not all(validation in run.metrics for run in candidates):
        if method == "best":
            raise UserError(
                "promotion.method best chooses on validation images, which protocol.refit trained on; name "
                f"one of {', '.join(by_method)} in params.yaml"
            )
        return by_method[method][0]
    if method == "best":
        means = {name: fmean(run.metrics[validation] for run in own) for name, own in by_method.items()}
        method = max(means, key=lambda name: merit(means[name]))
    return max(by_method[method], key=lambda run: merit(run.metrics[validation]))


def record(client: MlflowClient, version: ModelVersion, decision: Decision) -> None:
    """Write a decision to the challenger's run, and why to its version; an earlier one is replaced."""
    outcome = {OUTCOME: decision.outcome, REASON: decision.reason}
    note = client.get_run(version.run_id).data.tags.get(MLFLOW_RUN_NOTE, "").partition(HEADING)[0].rstrip()
    for key, value in {**outcome, MLFLOW_RUN_NOTE: f"{note}\n\n{decision.markdown}".lstrip()}.items():
        client.set_tag(version.run_id, key, value)
    if decision.difference is not None:
        for key, number in (
            ("promotion_difference", decision.difference.mean),
            ("promotion_low", decision.difference.low),
            ("promotion_high", decision.difference.high),
        ):
            client.log_metric(version.run_id, key, number)
    client.update_model_version(version.name, version.version, decision.reason)
    client.set_model_version_tag(version.name, version.version, REASON, decision.reason)


def conclude(
    client: MlflowClient, version: ModelVersion, decision: Decision, champion: ModelVersion | None
) -> None:
    """Mark the challenger as decided about beside this champion, once all that follows has been done."""
    against = "none" if champion is None else str(champion.version)
    for key, value in {OUTCOME: decision.outcome, AGAINST: against}.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def decide(
    challenger: Contender,
    champion: Contender | None,
    prepared: Prepared,
    compare: Compare,
    selection: Selection,
    *,
    rolled_back: str | None = None,
) -> Decision:
    """Whether the challenger should be the champion, by the metric `selection`.

    Both classify the test images, each with its own preprocessing; classes are the same if their names
    are. Images that either of them was trained or selected on are left out, with all others of their groups.
    A metric in which classes count the same is that of all of them, or of none.

    Args:
        rolled_back: the version with the challenger's weights that was rolled back.
    """
    if champion is None:
        return Decision(True, f"{challenger.title} is the first model: it is the champion")
    if challenger.model.card["weights_sha256"] == champion.model.card["weights_sha256"]:
        return Decision(
            False, f"{challenger.title} has the weights of the champion, {champion.title}; nothing to do"
        )
    if rolled_back is not None:
        again = rolled_back != str(challenger.version.version)
        which = f"has the weights of version {rolled_back}, which was" if again else "was"
        return Decision(
            False,
            f"{challenger.title} {which} rolled back; {champion.title} stays the champion until another "
            f"model is better or you say: stochca rollback --to {challenger.version.version}",
        )
    test = prepared.images("test")
    fair = ~group_was_seen(prepared, "test", np.union1d(champion.seen, challenger.seen))
    others = " (or others of their group)" if len(set(test.groups)) < len(test) else ""
    left_out = f"; {(~fair).sum()} that a model had seen{others} in training or validation were left out"
    if fair.all():
        left_out = ""
    for each in (challenger, champion):
        if each.model.levels != prepared.levels:
            left_out += f"; {each.title} has learned from images with other levels of grey than these"
    metric = SELECTIONS[selection]
    left = set(test.labels[fair].tolist())
    gone = [prepared.classes[label] for label in {*test.labels.tolist()} - left]
    of = f"of {_listed(gone) if gone else 'a second class'} " if left else ""
    missing = f"no test image {of}is left"
    if len(left) < (2 if selection == "auroc" else 1) or (gone and metric.by_class):
        return Decision(
            False,
            f"{challenger.title} can't be compared with the champion, {champion.title}: {missing}{left_out}",
        )
    if gone:
        left_out += f"; {missing}"
    new, old = (_contributions(each.model, prepared, fair, selection) for each in (challenger, champion))
    groups = np.array(test.groups)[fair]
    gain = estimate_metric(metric, [metric.sign * (new - old)[None]], [test.labels[fair]], [groups])
    (difference,) = judge([gain], compare.confidence, metric.extent)
    promoted = difference.verdict == "better"
    verdict = difference.verdict if difference.shown else "not shown to be better"
    told = (difference.low, difference.mean, difference.high)
    low, mean, high = (f"{100 * end:+.1f}" if metric.in_percent else f"{end:+.3f}" for end in told)
    number = len(set(groups))
    in_groups = f" of {number} groups" if number < fair.sum() else ""
    unit = "points of" if metric.in_percent else "less"
    return Decision(
        promoted,
        f"{challenger.title} is {verdict} than the champion, {champion.title}: {mean} {unit} test "
        f"{metric.title} ({100 * compare.confidence:g} % interval {low} to {high} over test images; other "
        f"seeds of the same methods may differ) on {fair.sum()} images{in_groups}{left_out}; "
        + ("it is the new champion" if promoted else "the champion stays"),
        difference=difference,
        test_images=int(fair.sum()),
        left_out=int((~fair).sum()),
        champion=str(champion.version.version),
        challenger=str(challenger.version.version),
    )


def _contributions(
    model: TrainedModel, prepared: Prepared, fair: np.ndarray, selection: Selection
) -> np.ndarray:
    """What each fair test image adds to the metric of a model, by the names of the classes: (N,)."""
    device = default_device()
    logits, labels = predict(
        model.model.to(device), prepared.images("test"), model.preprocessing, device=device
    )
    places = {name: place for place, name in enumerate(prepared.classes)}
    # Of the model's classes; those that the images don't have share one place more.
    own = np.array([places.get(name, len(places)) for name in model.classes])
    probabilities = np.zeros((len(places) + 1, len(labels)), np.float32)
    np.add.at(probabilities, own, logits.softmax(dim=1).numpy().T)
    predictions = own[logits.argmax(dim=1).numpy()]
    return contributions(selection, labels.numpy()[fair], predictions[fair], probabilities.T[fair])


def _challenge(client: MlflowClient, name: str, run: Run) -> ModelVersion:
    """The version that a run's model is, which has the alias of the challenger now."""
    version = register(client, name, run)
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def _crowned(client: MlflowClient, champion: ModelVersion, run: Run, prepared: Prepared) -> Contender:
    """The champion, with its model.

    Raises:
        UserError: it can't be loaded; the model of `run` has become a version, which a person may choose.
    """
    seen = np.array([], np.uint64)
    try:
        seen = seen_by(client, champion)
        return Contender(champion, load_version(champion), seen)
    except UserError as error:
        check_same_images(champion.name, champion, seen, prepared)
        version = _challenge(client, champion.name, run)
        raise UserError(
            f"the champion can't be compared with: {error}; or make {title_of(version)} the champion without "
            f"a comparison: stochca rollback --to {version.version}"
        ) from None


def seen_by(client: MlflowClient, version: ModelVersion) -> np.ndarray:
    """The hashes of the images that a version has seen, and of their groups.

    Raises:
        UserError: its run has no record of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = client.download_artifacts(version.run_id, f"results/{FILE}", folder)
        except (MlflowException, OSError):
            raise UserError(
                f"the run {version.run_id} of version {version.version} of {version.name} has no "
                f"results/{FILE}, so that no one knows which test images it has seen; bring it back"
            ) from None
        return read_seen(Path(file))
