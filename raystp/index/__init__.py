"""The reference index: rows to write (`write`), to search and read (`opened`), to extend or remove (`change`).

    shard-00000.vectors.npy      prepared vectors of a range of rows (unit length for cosine), float32
    shard-00000.faiss            of an approximate kind: what finds candidates among them (lists, or a graph)
    shard-00000.expression.*     their expression, rows in the same order
    quantizer.faiss              of ivf, ivfsq and ivfpq: centroids and codes, shared by all shards
    rows.parquet                 where each row came from, and its vector's length before it was prepared

The description that `write_reference_index` returns (plain JSON values) names the genes, the metric, the kind and why,
the recall that was measured, and each file's sha256; it belongs into the artifact's manifest, and nothing is opened
whose sha256 differs. Version 1 (one flat `shard-00000.faiss` a shard, expression float32) is still read.
"""
