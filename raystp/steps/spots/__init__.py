"""Step `spots`: measured sections -> one AnnData per section."""
