"""What the library and the pipeline's rooms are also good for, each with stages of its own."""
