"""The paper's results, each from one file: trainings, evaluations, a table and a picture."""
