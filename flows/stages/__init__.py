"""DVC's stages as tasks of Prefect."""
