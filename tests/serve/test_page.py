"""The page at ``/``: its files, and its behaviour in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from starlette.testclient import TestClient

from simcse_kit import SentenceEncoder, serve
from simcse_kit.errors import ConfigError
from simcse_kit.search import Hit
from simcse_kit.serve.app import create_app
from simcse_kit.serve.engine import EncoderEngine
from simcse_kit.serve.server import bind
from simcse_kit.serve.settings import ServeSettings

FOLDER = Path(serve.__file__).with_name("page")
KEY = "k3y"
HOSTILE = [
    "<script>document.title = 'hit'</script>",
    "<img src=x onerror=\"document.title = 'hit'\">",
    "\"quotes\" 'and' `backticks` ${document.title = 'hit'} &amp; </textarea></p>",
    "\u202eright to left\u202c שלום \u2067ערב טוב",
    "word" * 400,
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 漢字",
    "nothing\0 here",
]


class HostileIndex:
    """An index of hostile texts, which finds all of them, and refuses to find 50."""

    manifest = SimpleNamespace(encoder=SimpleNamespace(query_prompt=""))

    def __len__(self) -> int:
        return len(HOSTILE)

    def refresh(self) -> bool:
        return False

    def search_vectors(
        self,
        vectors: NDArray[np.float32],
        top_k: int = 5,
        threshold: float | None = None,
        **_: Any,
    ) -> list[list[Hit]]:
        if top_k == 50:
            raise ConfigError("<b>not so many</b>")
        if threshold is not None:
            return [[] for _ in vectors]
        hits = [Hit(text, text, 0.5, {text: text, "list": [text]}) for text in HOSTILE]
        return [hits for _ in vectors]


@pytest.fixture(scope="module")
def engine(tiny_encoder_dir: Path) -> EncoderEngine:
    return EncoderEngine(SentenceEncoder.load(tiny_encoder_dir))


def test_files_of_the_page_have_strict_headers_and_name_no_other_host(
    engine: EncoderEngine,
) -> None:
    with TestClient(create_app(engine, ServeSettings("tiny", key=KEY))) as client:
        paths = {f"/static/{file.name}": file.name for file in FOLDER.iterdir()}
        paths["/"] = "index.html"
        assert len(paths) > 8
        for path, name in paths.items():
            answer = client.get(path)
            assert answer.status_code == 200
            text = answer.text
            assert text == (FOLDER / name).read_text("utf-8")
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
            kind = kinds.get(Path(name).suffix, "image/svg+xml")
            assert answer.headers["content-type"].startswith(kind)
            assert set(re.findall(r"https?:[^\s\"']*", text)) <= {"http://www.w3.org/2000/svg"}
            assert not re.search(r"innerHTML|insertAdjacent|\sstyle=|\son[a-z]+=|<script>", text)


@contextmanager
def serving(engine: EncoderEngine, index: Any = None, **settings: Any) -> Iterator[str]:
    app = create_app(engine, ServeSettings("tiny", **settings), index)
    with bind("127.0.0.1", 0, public=False) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        listener.listen()
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def url(engine: EncoderEngine) -> Iterator[str]:
    with serving(engine, HostileIndex(), max_texts=64) as address:
        yield address


@contextmanager
def opened(chromium: Any, url: str, *, ignore: str = "$^", **options: Any) -> Iterator[Any]:
    """Open a page, and fail on errors and violations, and on requests to other hosts."""
    context = chromium.new_context(**options)
    tab = context.new_page()
    tab.set_default_timeout(10_000)
    noted: list[str] = []
    tab.on("console", lambda message: noted.append(message.text))
    tab.on("pageerror", lambda error: noted.append(str(error)))
    tab.on("request", lambda one: noted.append(one.url) if not one.url.startswith(url) else None)
    tab.add_init_script(
        "document.addEventListener('securitypolicyviolation', e => console.log(e.blockedURI))"
    )
    tab.goto(url)
    tab.locator("[role=tab][aria-selected=true]").wait_for()
    yield tab
    assert tab.title() == "tiny"
    assert tab.locator("script, img, iframe").count() == 2  # those of index.html
    assert not [line for line in noted if not re.search(ignore, line)]
    context.close()


def submitted(form: Any) -> str:
    """Return the text of the form's status line when the work is done."""
    form.locator("progress").wait_for(state="hidden")
    return str(form.locator("[role=status]").text_content())


def problem(form: Any) -> str:
    alert = form.locator("[role=alert]:not(:empty)")
    alert.wait_for()
    return str(alert.text_content())


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_hostile_texts_are_shown_as_texts_and_all_is_reached_by_keyboard(
    chromium: Any, url: str, width: int, scheme: str
) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with opened(chromium, url, **options, reduced_motion="reduce") as tab:
        keyboard = tab.keyboard

        def fits() -> bool:
            return bool(tab.evaluate("document.documentElement.scrollWidth") <= width)

        def focused() -> str:
            return str(tab.evaluate("document.activeElement.id"))

        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == (scheme == "dark")

        keyboard.press("Tab")
        assert focused() == "tab-search"
        ring = "getComputedStyle(document.activeElement).outlineStyle"
        assert tab.evaluate(ring) == "solid"
        keyboard.press("Tab")
        assert focused() == "query"
        tab.locator("#query").fill(HOSTILE[0])
        keyboard.press("Enter")
        tab.locator("#hits li").nth(len(HOSTILE) - 1).wait_for()
        assert submitted(tab.locator("#search-form")).startswith("7 results in ")
        shown = tab.locator("#hits li p:first-child").all_text_contents()
        assert shown == HOSTILE
        assert tab.locator("#hits .facts").first.text_content().count(HOSTILE[0]) == 4
        assert fits()

        keyboard.press("Shift+Tab")
        keyboard.press("ArrowRight")
        assert focused() == "tab-similarity"
        keyboard.press("Tab")
        tab.locator("#pairs").fill("\n".join(["", *HOSTILE, "  "]))
        keyboard.press("Tab")
        keyboard.press("Enter")
        tab.locator(".heat").wait_for()
        assert re.match(r"Most similar: \d and \d \(", submitted(tab.locator("#similarity-form")))
        assert tab.locator(".heat tbody th span").all_text_contents() == HOSTILE
        cells = tab.locator(".heat tbody td").all_text_contents()
        assert len(cells) == 49
        assert cells[:: len(HOSTILE) + 1] == ["1.00"] * 7
        assert fits()

        tab.locator("#tab-similarity").focus()
        keyboard.press("End")
        assert focused() == "tab-clusters"
        keyboard.press("Tab")
        tab.locator("#sentences").fill("\n".join([*HOSTILE, *HOSTILE]))
        tab.get_by_label("Number of clusters").select_option("3")
        tab.get_by_role("button", name="Draw").focus()
        keyboard.press("Enter")
        tab.locator("#map svg").wait_for()
        status = submitted(tab.locator("#clusters-form"))
        assert re.match(
            r"7 sentences in 3 clusters; the map keeps \d+\xa0% of the variance", status
        )
        assert sorted(tab.locator("#map li").all_text_contents()) == sorted(HOSTILE)
        keyboard.press("Tab")
        for expected in (HOSTILE[0], HOSTILE[1]):
            keyboard.press("ArrowRight")
            assert tab.locator(".shown bdi").text_content() == expected
        keyboard.press("ArrowLeft")
        assert tab.locator("circle.chosen").count() == 1
        assert fits()


@pytest.mark.long
@pytest.mark.browser
def test_problems_are_shown_as_text(chromium: Any, engine: EncoderEngine) -> None:
    refused = r"status of 4\d\d|net::ERR_FAILED"
    with (
        serving(engine, HostileIndex(), max_texts=16) as url,
        opened(chromium, url, ignore=refused) as tab,
    ):
        search, pairs = tab.locator("#search-form"), tab.locator("#similarity-form")
        tab.locator("#query").fill("a")
        tab.get_by_label("Minimum cosine").fill("0.9")
        tab.keyboard.press("Enter")
        search.get_by_text("Nothing found").wait_for()
        tab.get_by_label("Results").first.select_option("50")
        tab.get_by_role("button", name="Search").click()
        assert problem(search) == "<b>not so many</b>"
        assert not tab.locator("#hits li").count()

        tab.get_by_role("tab", name="Similarity").click()
        for text, expected in (
            ("one", "Give at least two sentences"),
            ("a\n" * 61, "at most 60 sentences, and these are 61"),
            ("a\n" * 20, "the request has 20 texts; at most 16 are allowed"),
        ):
            tab.locator("#pairs").fill(text)
            tab.get_by_role("button", name="Compare").click()
            pairs.locator("[role=alert]", has_text=expected).wait_for()

        tab.get_by_role("tab", name="Clusters").click()
        clusters = tab.locator("#clusters-form")
        for text, count, expected in (
            ("a\na\na\nb", "0", "at least three different sentences"),
            ("a\nb\nc", "4", "3 different sentences cannot form 4 clusters"),
            ("\n".join(map(str, range(501))), "0", "at most 500 sentences"),
        ):
            tab.locator("#sentences").fill(text)
            tab.get_by_label("Number of clusters").select_option(count)
            tab.get_by_role("button", name="Draw").click()
            clusters.locator("[role=alert]", has_text=expected).wait_for()
        # A lone surrogate would make the body of the request invalid.
        tab.evaluate("document.getElementById('pairs').value = 'a\\ud800\\nb'")
        tab.get_by_role("tab", name="Similarity").click()
        tab.get_by_role("button", name="Compare").click()
        tab.locator(".heat").wait_for()
        assert submitted(pairs).startswith("Cosine: ")
        assert tab.locator(".heat tbody th span").first.text_content() == "a\ufffd"

        held: list[Any] = []
        tab.route("**/v1/similarity", lambda route: held.append(route))
        tab.get_by_role("button", name="Compare").click()
        pairs.get_by_text("Working …").wait_for()
        assert pairs.locator("progress").is_visible()
        assert tab.locator("#heat[aria-busy=true]").count() == 1
        tab.get_by_role("button", name="Compare").click()  # ends the first request
        tab.wait_for_timeout(100)
        held[-1].continue_()
        pairs.get_by_text("Cosine: ").wait_for()
        assert not tab.locator("#heat[aria-busy]").count()
        assert not pairs.locator("progress").is_visible()
        tab.unroute("**/v1/similarity")
        tab.route("**/v1/similarity", lambda route: route.abort())
        tab.get_by_role("button", name="Compare").click()
        assert "The server does not answer" in problem(pairs)


@pytest.mark.long
@pytest.mark.browser
def test_the_page_asks_for_the_key_and_says_that_there_is_no_index(
    chromium: Any, engine: EncoderEngine
) -> None:
    with (
        serving(engine, key=KEY) as url,
        opened(chromium, url, ignore="status of 401") as tab,
    ):
        tab.get_by_text("an API key is needed").wait_for()
        form = tab.locator("#key-form")
        tab.wait_for_function("document.activeElement.id === 'key'")
        tab.keyboard.type("wrong")
        tab.keyboard.press("Enter")
        assert problem(form) == "The server refuses this key."
        tab.locator("#key").fill("schlüssel")
        tab.keyboard.press("Enter")
        form.get_by_text("only printable ASCII").wait_for()
        tab.locator("#key").fill(KEY)
        tab.keyboard.press("Enter")
        tab.get_by_text("no index", exact=False).first.wait_for()
        form.wait_for(state="hidden")
        assert KEY not in tab.content()
        assert tab.evaluate("localStorage.length + document.cookie.length") == 0
        tab.get_by_role("button", name="Compare").click()
        tab.locator(".heat").wait_for()
        tab.get_by_role("tab", name="Search").click()
        tab.get_by_text("This server has no index to search.").wait_for()
        assert not tab.locator("#search-form").is_visible()


@pytest.mark.long
@pytest.mark.browser
def test_clusters_and_axes_equal_those_of_numpy_and_scikit_learn(chromium: Any, url: str) -> None:
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 15)
    rows = rng.normal(size=(4, 24))[truth] + 0.35 * rng.normal(size=(60, 24))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with opened(chromium, url) as tab:
        found = tab.evaluate(
            """async (rows) => {
              const math = await import("/static/math.js");
              const unit = math.normalized(rows);
              const labels = math.bestClusters(unit, 8);
              const three = math.kMeans(unit, 3);
              const scores = [labels, three].map((each) => math.silhouette(unit, each));
              return { labels, three, scores, ...math.principalPoints(unit) };
            }""",
            rows.tolist(),
        )
    assert adjusted_rand_score(truth, found["labels"]) == 1
    for labels, score in zip((found["labels"], found["three"]), found["scores"], strict=True):
        assert score == pytest.approx(silhouette_score(rows, labels, metric="cosine"))
    centred = rows - rows.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    expected = np.abs(left[:, :2] * sizes[:2])
    np.testing.assert_allclose(np.abs(found["points"]), expected, atol=1e-3)
    assert found["share"] == pytest.approx((sizes[:2] ** 2).sum() / (sizes**2).sum())
