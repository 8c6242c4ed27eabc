"""What only the documents of an older library know, under our roof: their addresses lead here."""
