"""The domains of the datasets that come with theirs, for checks before anything is read."""

KNOWN_DOMAINS: dict[str, tuple[str, ...]] = {
    "openmoji": ("color", "line", "flat", "silhouette"),
    "pacs": ("art_painting", "cartoon", "photo", "sketch"),
    "vlcs": ("Caltech101", "LabelMe", "SUN09", "VOC2007"),
    "office_home": ("Art", "Clipart", "Product", "Real_World"),
    "terra_incognita": ("location_100", "location_38", "location_43", "location_46"),
    "domain_net": ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
}
