import pytest

from pipeline.storage.urls import is_chain, path_of, scheme_of, with_lower_scheme


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("data/a.parquet", "file"),
        ("/data/qa::train.parquet", "file"),
        ("qa::train.parquet", "file"),
        ("file:///data/a", "file"),
        ("/data/s3://a", "file"),
        ("s3://bucket/qa::train.parquet", "s3"),
        ("S3://bucket/a", "s3"),
        ("HTTPS://host/a?b=c", "https"),
        ("zip://*.csv::s3://bucket/a.zip", ""),
        ("simplecache::s3://bucket/a", ""),
    ],
)
def test_scheme_of_url(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme
    assert is_chain(url) == (scheme == "")


def test_only_the_scheme_is_written_in_lower_case() -> None:
    assert with_lower_scheme("S3://Bucket/Key") == "s3://Bucket/Key"
    assert with_lower_scheme("/Data/A") == "/Data/A"


def test_path_leaves_out_the_query_of_http_urls_only() -> None:
    assert path_of("http://host/a.jsonl?sig=x#top") == "http://host/a.jsonl"
    assert path_of("s3://bucket/a?b.jsonl") == "s3://bucket/a?b.jsonl"
    assert path_of("/data/a#b.jsonl") == "/data/a#b.jsonl"
