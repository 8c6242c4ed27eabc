"""What people see: NiceGUI pages on the application of the station. Everything is served from the wheel, offline."""
