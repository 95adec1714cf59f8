"""Parts of the measurement on a GPU: ``evaluation/speed/gpu_check.py`` runs them."""
