"""Ray and MLflow: the only room that knows them. Thin, and without science: it moves work, it does not do it."""
