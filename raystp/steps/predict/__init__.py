"""Step `predict`: slides + a trained or published model -> predicted expression, in one command."""
