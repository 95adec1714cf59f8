"""Tasks: STS, transfer, retrieval, paraphrase mining, clustering."""
