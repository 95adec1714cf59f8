"""Measured functions ``(params, rounds)`` that run in a worker process."""
