"""NH2ST: expression from a patch, trained with contrasts to its neighbourhood."""
