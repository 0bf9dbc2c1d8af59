"""Pictures, words and the HTML page that tell a run's story."""
