"""Genes of sections: their names and ids, their texts, the panel to predict, the most variable ones."""
