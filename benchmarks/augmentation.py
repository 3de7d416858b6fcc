"""Ways to augment a batch on a CPU: timm's, image by image on pictures, against torchvision's on tensors.

    python -m benchmarks.augmentation [--image-size 56 224] [--batch-size 32]

A random resized crop, a flip, and what makes bytes to normalised numbers; the images are in memory. The ways
take their batches in turn. The last gives all images of a batch one crop, which is no augmentation to train
with: it shows what there would be to gain.
"""

import statistics
from collections.abc import Callable

import stochca  # noqa: F401  # isort: skip  (before torchvision, which it lets import)
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from benchmarks.in_turn import in_turn, machine
from benchmarks.measuring import options, print_head, print_row
from stochca.config.training import Augmentation
from stochca.data.batch_transform import BatchTransform
from stochca.data.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENTATION = Augmentation(scale=(0.6, 1.0))


def ways(size: int, batch_size: int) -> dict[str, Callable[[], Tensor]]:
    """Each gives a batch (B, 3, size, size)."""
    random = np.random.default_rng(0)
    pictures = [
        Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(batch_size)
    ]
    bytes_BCHW = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    bytes_BCHW = bytes_BCHW.contiguous()
    timms = Preprocessing(size, MEAN, STD).training(AUGMENTATION)
    in_two_parts = BatchTransform(timms)
    crop = v2.RandomResizedCrop(
        size, AUGMENTATION.scale, AUGMENTATION.ratio, interpolation=InterpolationMode.BICUBIC
    )
    drawn = v2.Compose([crop, v2.RandomHorizontalFlip(AUGMENTATION.horizontal_flip)])
    rest = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD, inplace=True)])

    def affine() -> Tensor:
        """Crops and flips of all images as one resampling; without antialiasing."""
        boxes = [crop.make_params([image]) for image in bytes_BCHW]
        height, width, top, left = (
            torch.tensor([float(box[name]) for box in boxes]) / size
            for name in ("height", "width", "top", "left")
        )
        mirrored = 1 - 2 * (torch.rand(batch_size) < AUGMENTATION.horizontal_flip).float()
        theta = torch.zeros(batch_size, 2, 3)
        theta[:, 0, 0], theta[:, 0, 2] = width * mirrored, 2 * left + width - 1
        theta[:, 1, 1], theta[:, 1, 2] = height, 2 * top + height - 1
        grid = functional.affine_grid(theta, [batch_size, 3, size, size], align_corners=False)
        return rest(
            functional.grid_sample(
                bytes_BCHW.float(), grid, mode="bicubic", padding_mode="border", align_corners=False
            )
            .clamp_(0, 255)
            .to(torch.uint8)
        )

    return {
        "timm's, image by image": lambda: torch.stack([timms(picture) for picture in pictures]),
        "timm's, normalised as a batch (used)": lambda: in_two_parts.collate(
            [(in_two_parts.of_image(picture), 0) for picture in pictures]
        )[0],
        "torchvision v2, image by image": lambda: rest(torch.stack([drawn(image) for image in bytes_BCHW])),
        "one resampling of the batch": affine,
        "torchvision v2, one crop for all": lambda: rest(drawn(bytes_BCHW)),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--image-size", type=int, nargs="+", default=[56, 224])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=40)
    arguments = parser.parse_args()

    columns: dict[str, list[str]] = {}
    for size in arguments.image_size:
        torch.manual_seed(0)
        candidates = {
            name: lambda i, batch=batch: batch() for name, batch in ways(size, arguments.batch_size).items()
        }
        for name, seconds in in_turn(candidates, arguments.batches, warm_up=3).items():
            columns.setdefault(name, []).append(f"{1000 * statistics.median(seconds):.1f}")
    print(f"batch {arguments.batch_size}; {machine()}")
    print_head("ms per batch", *(f"{size} px" for size in arguments.image_size))
    for name, values in columns.items():
        print_row(name, *values)


if __name__ == "__main__":
    main()
