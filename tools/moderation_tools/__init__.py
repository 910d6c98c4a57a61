"""Tools around the worker: training, benches, the demonstration. Not what production installs."""
