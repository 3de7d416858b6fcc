"""What a choice of `adapter` adds to a backbone: LoRA, prompt tokens (VPT), top-down attention (TOAST)."""
