"""The command line: `stochca --help` lists its commands.

Nothing heavy is imported before a command needs it, so that help comes at once.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.runtime import boundary

app = typer.Typer(
    help="Fine-tune pretrained vision transformers with stochastic cross-attention, and use the results.",
    epilog="The stages themselves are run by DVC: `dvc repro`, or `make demo` for all of it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


ModelFolder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A trained model: a folder such as models/stochca-all-0, or in MLflow's registry "
        "models:/NAME@ALIAS or models:/NAME/VERSION.",
    ),
]


@app.command()
def check() -> None:
    """Check params.yaml, without running anything."""
    _check()


def _check() -> None:
    from pipeline.config.params import load_params
    from pipeline.config.precheck import check_project

    params = load_params()
    check_project(params)
    protocol = params.protocol
    typer.echo(f"params.yaml is valid: {protocol.runs} training runs of {', '.join(protocol.methods)}")
    _echo(params.notes)


@app.command()
def new(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Your labelled images; docs/own-images.md has the layouts."),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a params.yaml that you have edited.")
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="The table with the labels; the default is the only one there."),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its column with the class, if not label.")
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its column with the patient, ..., if not group.")
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0.05, metavar="N", help="How long all training may take, roughly.")
    ] = 1.0,
) -> None:
    """Write a params.yaml that suits your own images and this machine.

    It looks at the images, measures the machine for some seconds, and says why behind each value that it
    sets. A params.yaml that you have edited is replaced only with --force, and kept beside it.

    \b
    Examples:
      stochca new data/raw/flowers
      stochca new ~/photos --labels labels.csv --hours 3
      stochca new data/raw/scans --label-column diagnosis --group-column patient_id
    """
    from pipeline.commands.new import new_params

    _echo(
        new_params(
            folder,
            force=force,
            labels=labels,
            label_column=label_column,
            group_column=group_column,
            budget=hours,
        )
    )
    _check()
    typer.echo("Train, up to the page: make repro")


@app.command()
def use(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A preset, or NAME/VARIANT.")] = None,
    cost: Annotated[bool, typer.Option(help="Measure this machine and say what the runs will cost.")] = True,
) -> None:
    """Make params.yaml a preset: the settings of a known benchmark.

    A params.yaml that you have edited is kept beside it. `stochca presets` lists the names.

    \b
    Examples:
      stochca use openmoji_dg
      stochca use cub/refit --no-cost
    """
    from pipeline.commands.use import use_preset

    _echo(use_preset(name))
    if cost:
        _echo_cost()


@app.command()
def presets() -> None:
    """List the presets that `stochca use` knows."""
    from pipeline.commands.use import preset_table

    _echo(preset_table())


@app.command()
def cost(
    search: Annotated[
        bool, typer.Option("--search", help="Of the search alone, which `make tune` runs.")
    ] = False,
) -> None:
    """Measure this machine and say what params.yaml will cost here."""
    if search:
        from pipeline.commands.cost import search_cost_here
        from pipeline.config.params import load_params

        _echo(search_cost_here(load_params()))
    else:
        _echo_cost()


def _echo_cost() -> None:
    from pipeline.commands.cost import cost_here
    from pipeline.config.params import load_params

    _echo(cost_here(load_params()))


@app.command()
def predict(
    model: ModelFolder,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Image files, or folders to search for them.")
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to show per image.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Classify images with a trained model.

    Images that can't be read are named on stderr and left out.

    \b
    Examples:
      stochca predict models/stochca-all-0 photo.jpg
      stochca predict models/stochca-all-0 photos/ --top 1 --json > classes.json
      stochca predict models:/stochca@champion photo.jpg
    """
    from pipeline.commands.predict import predict_images, show

    show(predict_images(model, images, top), as_json=json)


@app.command()
def export(
    model: ModelFolder,
    to: Annotated[
        Literal["timm", "onnx"],
        typer.Option(help="timm: a folder for timm and the hub; onnx: a file for ONNX runtimes."),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Where to write; the default is beside the model.")
    ] = None,
) -> None:
    """Write a trained model for use elsewhere.

    What was written is checked against the original on real images: test images of data/prepared.

    \b
    Examples:
      stochca export models/stochca-all-0 --to timm  # models/stochca-all-0-timm/
      stochca export models/stochca-all-0 --to onnx --output classifier.onnx
      stochca export models:/stochca/3 --to timm  # stochca-3-timm/
    """
    from pipeline.commands.export import export_model

    typer.echo(export_model(model, to, output))


@app.command()
def table(
    comparisons: Annotated[
        list[Path],
        typer.Argument(
            metavar="COMPARISON", help="Files reports/comparison.json, of this and other workspaces."
        ),
    ],
    to: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to write table.md, table.tex and table.csv.")
    ],
) -> None:
    """Put several comparisons into one table, as the papers print it.

    Datasets stand side by side, every backbone in a block of its own; published numbers stand below.

    \b
    Examples:
      stochca table cub/comparison.json cars/comparison.json --to tables
      stochca table reports/comparison.json --to /tmp/table
    """
    from pipeline.report.benchmark_table import as_markdown, write_table
    from pipeline.report.table_contents import merge

    merged = merge(comparisons)
    files = write_table(to, merged)
    typer.echo(as_markdown(merged))
    typer.echo(f"Written: {', '.join(map(str, files))}")


@app.command()
def analyse(
    model: ModelFolder,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGES]",
            help="Images to show attention on, or folders; the default is a few test images.",
        ),
    ] = None,
    shown: Annotated[
        int, typer.Option(min=1, max=32, metavar="N", help="On how many test images attention is shown.")
    ] = 4,
    compared: Annotated[
        int, typer.Option(min=4, metavar="N", help="On how many test images features are compared.")
    ] = 256,
) -> None:
    """Show what fine-tuning has done to a model, block by block.

    Beside its backbone: how alike their features are (linear CKA), how far its weights have gone, where
    it looks, and how often its blocks cross-attended in training. Pictures and numbers go to
    reports/analysis/, and to the model's run in MLflow.

    \b
    Examples:
      stochca analyse models/stochca-all-0
      stochca analyse models/stochca-all-0 photo.jpg photos/
    """
    from pipeline.analysis.analysis import analyse_model
    from pipeline.registry.model_address import open_model
    from pipeline.runtime.paths import ANALYSES

    trained, named = open_model(model)
    target = ANALYSES / named.name
    _echo(analyse_model(trained, target, images or [], compared=compared, shown=shown))


@app.command()
def promote() -> None:
    """Compare the best model with the champion; promote it if it is better.

    The best on validation becomes a version of the registered model promotion.model and challenges
    the champion on today's test images. The alias champion moves to it only if it is shown to be
    better.
    """
    from pipeline.config.params import load_params
    from pipeline.registry.promote import promote as promote_best

    typer.echo(f"{promote_best(load_params()).reason}.")


@app.command()
def rollback(
    to: Annotated[
        int | None, typer.Option(metavar="VERSION", help="The version; the default is the one before.")
    ] = None,
) -> None:
    """Make the previous champion of the registry the champion again."""
    from pipeline.config.params import load_params
    from pipeline.registry.versions import rollback as roll_back

    typer.echo(f"{roll_back(load_params().promotion.model, None if to is None else str(to))}.")


@app.command()
def sync() -> None:
    """Send MLflow what it lacks of runs that lost it.

    Such runs wait in work/runs. MLFLOW_TRACKING_URI says where the server is now;
    without it, it is where the run was. Interrupt and repeat it as you like.
    """
    from pipeline.tracking.sync import sync as send_all

    _echo(send_all())


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


def main() -> None:
    boundary.run(app)


if __name__ == "__main__":
    main()
