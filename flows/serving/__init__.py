"""The servers, deployments and alerts around the flows."""
