"""Complete models: a network with its process and provenance, in folders, files, downloads and on the hub."""
