"""Show verdicts to a person: evidence pictures, an HTML page, tables."""
