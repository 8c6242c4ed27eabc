"""Whether a line still makes what it made when somebody last looked; NumPy alone."""
