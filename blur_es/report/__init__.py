"""Reports on runs, analyses and comparisons: pictures, text and an HTML page."""
