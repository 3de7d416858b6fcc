"""What a choice of `train` adds to a backbone: LoRA, prompt tokens (VPT), top-down attention (TOAST)."""
