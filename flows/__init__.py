"""The pipeline on a schedule: Prefect flows over the stages of dvc.yaml."""
