"""How a picture becomes what a backbone was trained to see: timm's transforms, as its card asks for them."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.data.transforms import RandomCropOrPad, str_to_interp_mode
from timm.data.transforms_factory import transforms_imagenet_train
from torch import Tensor
from torchvision.transforms import Resize

from stochca._typing import TimmModule
from stochca.backbones.card import BackboneCard
from stochca.config.training import Augmentation
from stochca.errors import UserError


@dataclass(frozen=True)
class Preprocessing:
    """What the backbone was trained to see."""

    image_size: int
    mean: tuple[float, ...]  # per channel
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize: int | None = None  # images become this square before the crop; None: their shape is kept

    @classmethod
    def of(cls, backbone: BackboneCard) -> "Preprocessing":
        return cls(backbone.image_size, backbone.mean, backbone.std, backbone.interpolation, backbone.resize)

    @classmethod
    def of_model(cls, model: TimmModule) -> "Preprocessing":
        """What a timm model says of itself; where it says nothing, timm's default, which is ImageNet's."""
        said = resolve_data_config({}, model=model)
        own_size = getattr(getattr(model, "patch_embed", None), "img_size", None)  # as it was made
        size = (own_size or said["input_size"])[-1]
        return cls(size, tuple(said["mean"]), tuple(said["std"]), said["interpolation"])

    @property
    def crop_pct(self) -> float:
        """The side of the centre crop, as a share of what images are resized to; timm's name for it."""
        if self.resize is None:
            return 1.0
        return self.image_size / (self.resize + 0.5)  # timm divides by it and rounds down

    @property
    def crop_mode(self) -> str:
        """timm's name for what is done to the shape of an image: `squash` makes it a square."""
        return "center" if self.resize is None else "squash"

    def evaluation(self) -> Callable[[Image.Image], Tensor]:
        """Resize, crop the centre, normalise; picture -> (3, size, size)."""
        return create_transform(
            self.image_size,
            is_training=False,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    def training(self, augmentation: Augmentation) -> Callable[[Image.Image], Tensor]:
        """timm's random augmentation; picture -> (3, size, size).

        Raises:
            UserError: timm can't read the policy `auto_augment`.
        """
        try:
            augmented = transforms_imagenet_train(
                self.image_size,
                scale=augmentation.scale,
                ratio=augmentation.ratio,
                hflip=augmentation.horizontal_flip,
                vflip=augmentation.vertical_flip,
                color_jitter=augmentation.color_jitter or None,
                force_color_jitter=True,  # which timm leaves out beside a policy
                grayscale_prob=augmentation.grayscale,
                auto_augment=augmentation.auto_augment,
                re_prob=augmentation.random_erasing,
                interpolation=self.interpolation,
                mean=self.mean,
                std=self.std,
            )
        except (AssertionError, ValueError, KeyError) as error:
            raise UserError(
                f"training.augmentation.auto_augment {augmentation.auto_augment!r} is no policy of timm "
                f"({error or type(error).__name__}); give one such as rand-m9-mstd0.5, augmix-m3 or null"
            ) from None
        if self.resize is not None:
            square = Resize((self.resize, self.resize), str_to_interp_mode(self.interpolation))
            augmented.transforms.insert(0, square)
        if augmentation.crop == "random":
            if self.resize is None:
                raise UserError(
                    "training.augmentation.crop random cuts a part out of a larger image; set resize to that "
                    f"image's side, above image_size {self.image_size}, or choose random_resized"
                )
            augmented.transforms[1] = RandomCropOrPad(self.image_size)  # in place of timm's
        return augmented
