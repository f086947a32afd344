"""mclSTExp: contrastive training with a transformer over the spots of a section, prediction by retrieval."""
