"""The command line: `stochca check`, `stochca predict`, `stochca export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline import boundary

app = typer.Typer(
    help="Fine-tune pretrained vision transformers with stochastic cross-attention, and use the results.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


class Format(StrEnum):
    timm = "timm"
    onnx = "onnx"


ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A trained model, such as models/stochca-all-0.")
]


@app.command()
def check() -> None:
    """Check params.yaml, without running anything."""
    from pipeline.params import load_params
    from pipeline.precheck import check_inputs

    params = load_params()
    check_inputs(params)
    protocol = params.protocol
    runs = len(protocol.methods) * len(protocol.targets) * len(protocol.seeds)
    typer.echo(f"params.yaml is valid: {runs} training runs of {', '.join(protocol.methods)}")


@app.command()
def predict(
    model: ModelFolder,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show per image.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Classify images with a trained model."""
    from pipeline.predict import predict_images, show

    show(predict_images(model, images, top), as_json=json)


@app.command()
def export(
    model: ModelFolder,
    to: Annotated[Format, typer.Option(help="timm: weights that timm.create_model loads; onnx: a graph.")],
    output: Annotated[Path | None, typer.Option(help="Where to write; next to the model by default.")] = None,
) -> None:
    """Write a trained model in another format, and check it against the original on real images."""
    from pipeline.export import export_model

    typer.echo(export_model(model, to.value, output))


def main() -> None:
    boundary.run(app)


if __name__ == "__main__":
    main()
