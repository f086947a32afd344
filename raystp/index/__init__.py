"""The reference index: rows to write (`write`), to search and read (`open`), to extend or remove (`change`).

    shard-00000.vectors.npy      prepared vectors of a range of rows (unit length for cosine), float32
    shard-00000.faiss            of an approximate kind: the FAISS index that finds candidates (lists, or a graph)
    shard-00000.expression.*     their expression, rows in the same order
    quantizer.faiss              of ivf, ivfsq and ivfpq: centroids and codes, shared by all shards
    rows.parquet                 where each row came from, and its vector's length before it was prepared
    queries.parquet              tiles on which recall and distances are measured

`write_reference_index` returns the description of an index (`raystp.index.description`): genes, metric, kind and the
reason for it, measured recall, and each file's sha256. It is stored in the artifact's manifest. Version 1 (one flat
`shard-00000.faiss` per shard, expression in float32) is still read.
"""
