"""Who is let in: the right host, the same origin, the token; nobody else reaches the application."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from warpfuse.web.security import MOST_BYTES, AccessRules, Guard, is_loopback, new_token

HERE = "http://127.0.0.1:8080"


@pytest.fixture
def reached():
    return []


@pytest.fixture
def client(reached):
    """client(access) -> a client of a guarded application that notes what reached it."""

    async def answer(request):
        reached.append(len(await request.body()))
        return PlainTextResponse("in")

    async def socket(websocket):
        reached.append("socket")
        await websocket.accept()
        await websocket.close()

    routes = [Route("/x", answer, methods=["GET", "POST"]), WebSocketRoute("/live", socket)]

    def client_of(access=AccessRules(), base=HERE):  # noqa: B008
        app = Starlette(routes=routes)
        app.add_middleware(Guard, access=access)
        return TestClient(app, base_url=base, follow_redirects=False)

    return client_of


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:9", "[::1]:8080", "LOCALHOST"])
def test_this_machine_is_let_in_by_its_names(client, host):
    assert client().get("/x", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.2:8080", "", "[", "user@127.0.0.1x"]
)
def test_a_foreign_host_is_refused(client, reached, host):
    answer = client().get("/x", headers={"host": host})
    assert (answer.status_code, reached) == (421, [])
    assert "not known as" in answer.json()["error"]


def test_a_name_that_was_allowed_is_let_in(client):
    assert (
        client(AccessRules(allowed=("studio.local",))).get("/x", headers={"host": "Studio.local:1"}).status_code == 200
    )


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9999", "null", "http://localhost:8080", ""]
)
def test_a_foreign_origin_changes_nothing(client, reached, origin):
    answer = client().post("/x", headers={"origin": origin})
    assert (answer.status_code, reached) == (403, [])


def test_the_own_origin_and_programs_without_one_may_change_things(client):
    assert client().post("/x", headers={"origin": HERE}).status_code == 200
    assert client().post("/x").status_code == 200


def test_pages_from_elsewhere_may_link_here_but_not_take_pictures(client, reached):
    taken = client().get("/x", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"})
    assert (taken.status_code, reached) == (403, [])
    linked = client().get("/x", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})
    assert linked.status_code == 200
    assert linked.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"host": "evil.example"}])
def test_a_foreign_page_gets_no_websocket(client, reached, headers):
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/live", headers=headers):
        pass
    assert reached == []
    with client().websocket_connect("/live", headers={"origin": HERE, "host": "127.0.0.1:8080"}):
        pass
    assert reached == ["socket"]


def test_a_huge_body_is_cut_off_whether_it_tells_its_length_or_not(client, reached):
    assert client().post("/x", content=b"x" * (MOST_BYTES + 1)).status_code == 413

    def chunks():
        for _ in range(40):
            yield b"x" * (MOST_BYTES // 20)

    with pytest.raises(Exception, match=r"^$"):  # the client is told that its connection was closed
        client().post("/x", content=chunks())
    assert reached == []
    client().post("/x", content=b"x" * MOST_BYTES)
    assert reached == [MOST_BYTES]


@pytest.mark.parametrize("length", ["-1", "1e9", "", "99999999999999999999"])
def test_a_length_that_is_no_number_is_refused(client, reached, length):
    assert client().post("/x", content=b"", headers={"content-length": length}).status_code == 413
    assert reached == []


def test_every_answer_forbids_what_comes_from_elsewhere(client):
    for answer in (client().get("/x"), client().get("/x", headers={"host": "evil.example"})):
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


class TestToken:
    ACCESS = AccessRules("0.0.0.0", token="right-token")
    BASE = "http://192.168.1.2:8080"

    def test_nothing_is_served_without_the_token(self, client, reached):
        visitor = client(self.ACCESS, self.BASE)
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"cookie": "warpfuse_token=wrong"},
            {"cookie": b"a=\xff;;"},
        ):
            assert visitor.get("/x", headers=headers).status_code == 401
        for token in ("", "wrong", "right-toke", "right-token1", "%C3%A9"):
            assert visitor.get(f"/x?token={token}").status_code == 401
        with pytest.raises(WebSocketDisconnect), visitor.websocket_connect("/live?token=right-token"):
            pass
        assert reached == []

    def test_the_address_that_was_printed_lets_in_and_leaves_the_token_behind(self, client, reached):
        visitor = client(self.ACCESS, self.BASE)
        answer = visitor.get("/x?view=side&token=right-token")
        assert (answer.status_code, answer.headers["location"], reached) == (303, "/x?view=side", [])
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert visitor.get("/x").status_code == 200
        kept = {
            "host": "192.168.1.2:8080",
            "origin": self.BASE,
            "cookie": answer.headers["set-cookie"].partition(";")[0],
        }
        with visitor.websocket_connect("/live", headers=kept):
            pass

    def test_the_redirect_leads_to_no_other_host(self, client):
        answer = client(self.ACCESS, self.BASE).get(f"{self.BASE}//evil.example/?token=right-token")
        assert answer.headers["location"] == "/evil.example/"

    def test_programs_send_the_token_as_a_bearer(self, client):
        visitor = client(self.ACCESS, self.BASE)
        assert visitor.post("/x", headers={"authorization": "Bearer right-token"}).status_code == 200

    def test_foreign_host_names_are_refused_even_with_the_token(self, client):
        headers = {"host": "evil.example", "authorization": "Bearer right-token"}
        assert client(self.ACCESS, self.BASE).get("/x", headers=headers).status_code == 421

    def test_the_token_is_not_shown(self):
        assert "right-token" not in repr(self.ACCESS)
        assert new_token() != new_token() and len(new_token()) >= 32


def test_loopback_is_what_only_this_machine_reaches():
    assert [is_loopback(h) for h in ("127.0.0.1", "127.8.8.8", "::1", "localhost")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.2", "localhost.example")] == [False] * 4


@pytest.mark.parametrize(("path", "why"), [("/x", "A token is needed"), ("/x?token=wrong", "The token is wrong")])
def test_a_browser_without_the_token_is_asked_for_it_and_a_program_is_told(client, reached, path, why):
    visitor = client(TestToken.ACCESS, TestToken.BASE)
    page = visitor.get(path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.status_code == 401 and page.headers["content-type"].startswith("text/html")
    assert why in page.text and '<form method="get">' in page.text and 'name="token"' in page.text
    assert "right-token" not in page.text and "<script" not in page.text and "style=" not in page.text
    assert visitor.get(path, headers={"accept": "application/json"}).json()["error"].startswith(why[0].lower())
    assert reached == []
