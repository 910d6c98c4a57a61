"""The cheap look before the model: phrases and images that a policy lists itself."""
