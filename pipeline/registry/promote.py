"""Lets the best trained model challenge the champion of the registry.

python -m pipeline.registry.promote
"""

from pipeline.config.params import load_params
from pipeline.runtime import boundary


def main() -> None:
    params = load_params()
    from pipeline.registry.promotion import promote  # heavy, and not needed to find a mistake in params.yaml

    print(f"{promote(params).reason}.")


if __name__ == "__main__":
    boundary.run(main)
