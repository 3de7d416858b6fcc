"""Ways to fine-tune a small language model, compared on an instruction set: `make language`."""
