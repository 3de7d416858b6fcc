import stochca  # noqa: F401  (before timm and torchvision, which it lets be imported beside a torch for CPUs)
