"""A genome as a scikit-learn classifier and as a regressor."""

from __future__ import annotations

from blur_es.classifier.estimator import BlurClassifier
from blur_es.classifier.regressor import BlurRegressor

__all__ = ["BlurClassifier", "BlurRegressor"]
