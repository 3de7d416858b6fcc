from mlflow.utils.validation import _validate_metric_name

from pipeline.tracking.labels import allowed

NAMES = [
    *("lr", "training.lr", "validation 2: a/b", "Größe", "difference_to_stochca+swad"),
    *("class_weights.crack (fine)", "class_weights.crack [fine]", "class_weights.crack _fine_"),
    *("class_weights.a//b", "class_weights.a/", "class_weights..", "class_weights.a/../b", "class_weights.?"),
]


def test_what_mlflow_refuses_gets_another_name_and_no_two_the_same() -> None:
    names = allowed(NAMES)
    for name in names.values():
        _validate_metric_name(name)  # MLflow's own
    assert names.keys() == set(NAMES)
    assert len(set(names.values())) == len(NAMES)
    assert names["difference_to_stochca+swad"] == "difference_to_stochca_swad"
    for name in ("lr", "training.lr", "validation 2: a/b", "Größe", "class_weights.crack _fine_"):
        assert names[name] == name
    assert allowed(reversed(NAMES)) == names
