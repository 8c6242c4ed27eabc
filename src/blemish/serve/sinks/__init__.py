"""Where verdicts go: programs, files, and the controllers of machines."""
