"""Studies: whole runs that end in a table and a picture."""
