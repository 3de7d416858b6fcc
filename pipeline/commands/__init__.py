"""What the command line does with a trained model or with params.yaml."""
