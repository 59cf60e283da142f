"""What was found, as plain data; its pictures and its files."""
