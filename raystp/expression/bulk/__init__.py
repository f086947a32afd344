"""Labels of whole cases: tables of cases x genes, and which slides belong to which case."""
