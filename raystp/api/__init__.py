"""The Python API, `import raystp as rs`: thin functions over the same configs and packages as the command line."""
