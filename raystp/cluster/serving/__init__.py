"""HTTP service on Ray Serve: app, guard, messages, deployment."""
