"""How many images the known datasets hold, to say what a protocol costs before anything is downloaded."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Images:
    """Images by official split, or by domain where there are none."""

    train: int = 0
    validation: int = 0  # 0: none is official
    test: int = 0
    domains: dict[str, int] = field(default_factory=dict)
    paired: bool = False  # the same subjects in every domain


KNOWN_IMAGES: dict[str, Images] = {
    "openmoji": Images(domains={"color": 1898, "line": 1898, "flat": 1898, "silhouette": 1898}, paired=True),
    "cub_200_2011": Images(train=5994, test=5794),
    "stanford_cars": Images(train=8144, test=8041),
    "fgvc_aircraft": Images(train=3334, validation=3333, test=3333),
    "stanford_dogs": Images(train=12000, test=8580),
    "flowers_102": Images(train=1020, validation=1020, test=6149),
    "nabirds": Images(train=23929, test=24633),
    "pacs": Images(domains={"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929}),
    "vlcs": Images(domains={"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376}),
    "office_home": Images(domains={"Art": 2427, "Clipart": 4365, "Product": 4439, "Real_World": 4357}),
    "terra_incognita": Images(
        domains={"location_100": 4741, "location_38": 9736, "location_43": 3970, "location_46": 5883}
    ),
    "domain_net": Images(
        domains={
            "clipart": 48129,
            "infograph": 51605,
            "painting": 72266,
            "quickdraw": 172500,
            "real": 172947,
            "sketch": 69128,
        }
    ),
}
