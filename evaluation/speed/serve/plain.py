"""A plain endpoint with OpenAI's embeddings API: FastAPI and sentence-transformers.

    python plain.py MODEL [--port 8001]

What most applications start with: a synchronous route, so that FastAPI runs it in a thread, and one
call of ``encode`` per request.
"""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    input: list[str] | str
    model: str = ""


def create_app(path: str) -> FastAPI:
    from sentence_transformers import SentenceTransformer

    app = FastAPI()
    model = SentenceTransformer(path, device="cpu")

    @app.post("/v1/embeddings")
    def embeddings(body: Body) -> dict[str, object]:
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors = model.encode(texts)
        data = [
            {"object": "embedding", "index": number, "embedding": vector.tolist()}
            for number, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "model": body.model}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--port", type=int, default=8001)
    given = parser.parse_args()
    uvicorn.run(create_app(given.model), port=given.port, access_log=False, log_level="warning")
