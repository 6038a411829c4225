"""Programs written for other packages: their names, our code."""
