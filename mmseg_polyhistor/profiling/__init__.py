"""What models and pipelines cost: multiply-adds, times and memory beside plain references. Nothing here is imported
by the package itself; the tools use it."""
