"""The results of explaining, as plain data; their pictures and their files."""
