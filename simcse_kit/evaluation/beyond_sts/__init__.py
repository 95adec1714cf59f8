"""Tasks beside STS: SentEval transfer, paraphrases, retrieval, clustering."""
