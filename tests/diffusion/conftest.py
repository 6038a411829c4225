from golden_processes import golden, golden_loop

__all__ = ["golden", "golden_loop"]
