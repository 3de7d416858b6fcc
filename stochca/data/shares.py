"""Which images each rank looks at."""

from PIL import Image

from stochca.compute.distributed import rank, world_size
from stochca.data.loaders import Images


class ImageShare:
    """The images that this rank looks at when all ranks look at a split together, in order."""

    def __init__(self, images: Images) -> None:
        self.images = images
        share, longer = divmod(len(images), world_size())  # the first ranks have one more
        start = rank() * share + min(rank(), longer)
        self.rows = range(start, start + share + (rank() < longer))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[self.rows[index]]
