"""What a person looks at: evidence figures, pages, tables."""
