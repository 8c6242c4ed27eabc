"""What people and programs take away from a run: tables and data files."""
