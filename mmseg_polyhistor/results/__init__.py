"""What runs have left behind, in tables and figures: work dirs are read, compared and drawn. Nothing here is imported by
the package itself; the tools use it."""
