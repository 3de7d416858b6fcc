"""Which trained model is the champion: MLflow's model registry."""
