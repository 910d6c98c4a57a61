"""What can be wrong with a deployment, each thing with its fix."""
