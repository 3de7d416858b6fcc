"""Lets the best trained model challenge the champion of the registry.

python -m pipeline.promote
"""

from pipeline import boundary
from pipeline.params import load_params


def main() -> None:
    params = load_params()
    from pipeline.promotion import promote  # heavy, and not needed to find a mistake in params.yaml

    print(f"{promote(params).reason}.")


if __name__ == "__main__":
    boundary.run(main)
