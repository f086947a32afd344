"""Layout `stimage`: a section of STimage-1K4M, as tables of places and counts."""
