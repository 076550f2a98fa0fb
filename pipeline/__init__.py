"""Driver side: from Parquet rows to batches and from completions back to Parquet.

Plain Python; never JAX.
"""
