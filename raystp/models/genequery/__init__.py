"""GeneQuery: expression of any gene that has a text."""
