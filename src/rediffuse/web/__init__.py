"""The server: a page for people and an interface for programs, which judge uploaded images."""
