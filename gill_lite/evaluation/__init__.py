"""Evaluation: tables as descriptions, one scorer, a cache of pictures, claims and verdicts."""
