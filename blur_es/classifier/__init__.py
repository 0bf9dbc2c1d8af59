"""A genome as a scikit-learn classifier."""

from __future__ import annotations

from blur_es.classifier.estimator import BlurClassifier

__all__ = ["BlurClassifier"]
