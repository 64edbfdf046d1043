"""The launch book: 42 tasks in 11 phases as specified, each with something to do and a way to know."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autopilots.runbooks import Book, load
from autopilots.runbooks.book import BOOKS
from router.graph import PRIORITIES, Action, Step
from router.order import critical_path, dependents, order, schedule, subgraph
from router.steps import parse_graph
from router.template import references

TASKS = [
    ("S0-20", "001", "Install missing npm dependencies", 1, "critical", "", 2),
    ("S0-21", "002", "Fix next.config.js configuration", 1, "critical", "001", 1),
    ("S0-22", "003", "Create PulseInbox component stub", 1, "critical", "001", 5),
    ("S0-23", "004", "Run production build test", 1, "critical", "001 002 003", 5),
    ("S0-25", "005", "Create production Supabase project", 2, "critical", "004", 10),
    ("S0-26", "006", "Apply database migrations", 2, "critical", "005", 5),
    ("S0-27", "007", "Configure row-level security", 2, "critical", "006", 15),
    ("S0-28", "008", "Verify connection and tables", 2, "critical", "007", 3),
    ("S0-30", "009", "Create production Clerk application", 3, "critical", "004", 10),
    ("S0-31", "010", "Configure Clerk domains", 3, "critical", "009", 5),
    ("S0-32", "011", "Set up Clerk webhooks", 3, "high", "010", 10),
    ("S0-34", "012", "Link project to Vercel", 4, "high", "004", 2),
    ("S0-35", "013", "Configure production env vars", 4, "high", "008 010 012", 15),
    ("S0-36", "014", "Deploy to preview", 4, "high", "013", 10),
    ("S0-37", "015", "Test preview deployment", 4, "high", "014", 15),
    ("S0-38", "016", "Deploy to production", 4, "high", "015", 10),
    ("S0-40", "017", "Configure API domain", 5, "high", "016", 5),
    ("S0-41", "018", "Update DNS records", 5, "high", "017", 10),
    ("S0-42", "019", "Verify SSL certificate", 5, "high", "018", 5),
    ("S0-44", "020", "Set up Sentry", 6, "medium", "016", 10),
    ("S0-45", "021", "Enable Vercel Analytics", 6, "medium", "016", 3),
    ("S0-46", "022", "Configure log drains", 6, "low", "021", 15),
    ("S0-48", "023", "Deploy orchestrator API endpoints", 7, "high", "016", 5),
    ("S0-49", "024", "Test autonomous orchestrator via API", 7, "high", "023", 10),
    ("S0-50", "025", "Verify all health endpoints", 7, "medium", "023", 5),
    ("S0-52", "026", "Analyze bundle size", 8, "medium", "016", 10),
    ("S0-53", "027", "Optimize images and assets", 8, "low", "026", 20),
    ("S0-54", "028", "Enable caching and ISR", 8, "medium", "016", 10),
    ("S0-55", "029", "Add database indexes", 8, "medium", "008", 15),
    ("S0-57", "030", "Update CSP headers", 9, "high", "016", 10),
    ("S0-58", "031", "Enable rate limiting", 9, "high", "023", 20),
    ("S0-59", "032", "Run security audit", 9, "high", "004", 10),
    ("S0-60", "033", "Verify API authentication", 9, "high", "025", 15),
    ("S0-62", "034", "Run smoke tests on production", 10, "critical", "019", 20),
    ("S0-63", "035", "Test mobile responsiveness", 10, "medium", "034", 10),
    ("S0-64", "036", "Run load testing", 10, "medium", "034", 15),
    ("S0-65", "037", "Verify all success criteria", 10, "critical", "034 035", 10),
    ("S0-67", "038", "Update deployment documentation", 11, "medium", "037", 30),
    ("S0-68", "039", "Create API documentation", 11, "low", "025", 45),
    ("S0-69", "040", "Write deployment runbook", 11, "medium", "037", 30),
    ("S0-70", "041", "Generate completion report", 11, "high", "037", 20),
    ("S0-71", "042", "Deploy orchestrator to API domain", 11, "critical", "019 024 037", 10),
]
"""Requirement, number, title, phase, priority, needs, minutes."""

PHASES = [
    ("S0-19", "Critical Build Fixes", 4, 13),
    ("S0-24", "Production Database", 4, 33),
    ("S0-29", "Authentication", 3, 25),
    ("S0-33", "Vercel Deployment", 5, 52),
    ("S0-39", "Domain Configuration", 3, 20),
    ("S0-43", "Monitoring", 3, 28),
    ("S0-47", "API Endpoints", 3, 20),
    ("S0-51", "Performance", 4, 55),
    ("S0-56", "Security", 4, 55),
    ("S0-61", "Testing", 4, 55),
    ("S0-66", "Documentation", 5, 135),
]
"""Requirement, title, tasks, minutes. Where the document counts four tasks at the end there are five."""

REQUIRED = {
    "project_name": "shop",
    "domain": "shop.example",
    "orchestrator_url": "https://router.example",
    "supabase_organization": "org",
    "vercel_team": "team",
    "dns_zone": "0f1e",
    "sentry_organization": "org",
    "sentry_team": "web",
}
RESULT = {
    "json": {"id": "id1", "result": {"id": "id2"}},
    "stdout": "https://preview.example",
    "status": 200,
    "seconds": 0.4,
    "backup": "",
}
RUN = {"id": "run1", "started_at": "2026-01-01T00:00:00Z"}

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run its scripts")


@pytest.fixture(scope="module")
def book() -> Book:
    """Give the launch book."""
    return load("launch")


def actions(step: Step) -> list[Action]:
    """Return all that a step may do."""
    fixes = [fix.action for fix in step.fixes]
    return [action for action in (step.action, step.undo, *step.verify, *fixes) if action]


def filled(book: Book, action: Action, **params: str) -> dict[str, Any]:
    """Return the meta of a task as it is sent, with some parameters of our own."""
    results = {step.id: RESULT for step in book.graph.steps}
    return action.filled(book.values(REQUIRED | params), results, RUN).meta


# What was specified


@pytest.mark.parametrize(
    ("number", "title", "phase", "priority", "needs", "minutes"),
    [pytest.param(*row[1:], id=row[0]) for row in TASKS],
)
def test_each_task_is_as_it_was_specified(
    book: Book, number: str, title: str, phase: int, priority: str, needs: str, minutes: int
) -> None:
    """Id, title, phase, priority, dependencies and minutes are the seed's, and it can be done and known."""
    step = book.graph.step(f"TASK-{number}")
    assert (step.title, step.priority, step.estimated_minutes) == (title, priority, minutes)
    assert step.phase == book.phases[phase - 1].id
    assert step.needs == tuple(f"TASK-{need}" for need in needs.split())
    assert step.action or step.approval
    assert step.verify


@pytest.mark.parametrize(
    ("place", "title", "tasks", "minutes"),
    [pytest.param(place, *row[1:], id=row[0]) for place, row in enumerate(PHASES)],
)
def test_each_phase_has_its_tasks_and_minutes(
    book: Book, place: int, title: str, tasks: int, minutes: int
) -> None:
    """Eleven phases, each with as many tasks and minutes as specified, listed together."""
    phase = book.phases[place]
    steps = [step for step in book.graph.steps if step.phase == phase.id]
    assert (phase.title, len(steps), sum(step.estimated_minutes for step in steps)) == (title, tasks, minutes)
    assert subgraph(book.graph, only=[phase.id]).steps[0].id == steps[0].id


def test_d17_s0_10_s0_71_the_book_has_42_tasks_in_11_phases(book: Book) -> None:
    """All 42 tasks are there, not 41, in the order of their numbers, in 11 phases."""
    assert [step.id for step in book.graph.steps] == [f"TASK-{n:03}" for n in range(1, 43)]
    assert len(TASKS) == 42
    assert len(book.phases) == 11
    assert Counter(step.priority for step in book.graph.steps) == dict(
        zip(PRIORITIES, (13, 16, 10, 3), strict=True)
    )


def test_s0_72_the_minutes_are_what_the_tasks_say(book: Book) -> None:
    """The total is the sum of the estimates, 491 minutes: a bit over eight hours."""
    assert sum(step.estimated_minutes for step in book.graph.steps) == 491


def test_s0_163_the_longest_way_is_18_tasks_and_185_minutes(book: Book) -> None:
    """The critical path takes 185 of the 491 minutes, from the only root to one of 16 leaves."""
    minutes, way = critical_path(book.graph)
    assert minutes == 185
    assert " ".join(id_[-3:] for id_ in way) == (
        "001 003 004 005 006 007 008 013 014 015 016 017 018 019 034 035 037 038"
    )
    assert [step.id for step in book.graph.steps if not step.needs] == ["TASK-001"]
    assert sum(not after for after in dependents(book.graph).values()) == 16


def test_s0_07_critical_comes_first_where_it_can(book: Book) -> None:
    """One worker does a task of a higher priority first; five tasks wait on one of a lower priority."""
    rank = {step.id: PRIORITIES.index(step.priority) for step in book.graph.steps}
    lower = {
        (step.id[-3:], need[-3:])
        for step in book.graph.steps
        for need in step.needs
        if rank[need] > rank[step.id]
    }
    assert lower == {("033", "025"), ("034", "019"), ("037", "035"), ("042", "019"), ("042", "024")}
    assert order(book.graph)[:5] == tuple(f"TASK-{n}" for n in ("001", "003", "002", "004", "005"))


@pytest.mark.parametrize(("workers", "most"), [(1, 491), (2, 270), (4, 195), (5, 185), (None, 185)])
def test_s0_163_the_schedule_keeps_within_a_tenth_of_the_bound(
    book: Book, workers: int | None, most: float
) -> None:
    """With 2 and 4 workers it takes at most 1.1 times the least there is; with enough, the longest way."""
    minutes = schedule(book.graph, workers).minutes
    assert minutes == most
    if workers in (1, 2, 4, None):
        assert minutes <= 1.1 * max(185, 491 / (workers or 42))


@pytest.mark.parametrize(
    ("place", "steps"),
    [
        pytest.param(0, "004", id="S0-122"),
        pytest.param(1, "008", id="S0-123"),
        pytest.param(2, "010 011", id="S0-124"),
        pytest.param(3, "016 019", id="S0-125"),
        pytest.param(4, "025", id="S0-126"),
        pytest.param(5, "020 021", id="S0-127"),
        pytest.param(6, "030 031 032 033", id="S0-128"),
        pytest.param(7, "037", id="S0-129"),
        pytest.param(8, "034", id="S0-130"),
        pytest.param(9, "038 039 040 041", id="S0-131"),
    ],
)
def test_each_criterion_is_shown_by_tasks(book: Book, place: int, steps: str) -> None:
    """Each of the ten criteria of success holds when the tasks that it is bound to are completed."""
    assert len(book.criteria) == 10
    assert book.criteria[place].steps == tuple(f"TASK-{number}" for number in steps.split())


def test_s0_01_s0_03_the_goal_is_stated(book: Book) -> None:
    """Title, objective and the five constraints are there, without the brand of the seed."""
    assert book.title == "Orchestrator 3.0"
    assert book.objective.endswith("100% production readiness")
    assert len(book.constraints) == 5
    assert "dealership" not in (BOOKS / "launch.yaml").read_text().lower()


ENVIRONMENT = {
    "S0-96": ("NEXT_PUBLIC_SUPABASE_URL", "008 013"),
    "S0-97": ("NEXT_PUBLIC_SUPABASE_ANON_KEY", "013"),
    "S0-98": ("SUPABASE_SERVICE_ROLE_KEY", "008 013"),
    "S0-99": ("DATABASE_URL", "013"),
    "S0-100": ("DIRECT_URL", "013"),
    "S0-101": ("NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY", "009 013"),
    "S0-102": ("CLERK_SECRET_KEY", "009 010 011 013 037"),
    "S0-103": ("VERCEL_TOKEN", "011 012 013 014 015 016"),
    "S0-104": ("VERCEL_ORG_ID", "011 012 013 014 016"),
    "S0-105": ("VERCEL_PROJECT_ID", "011 012 013 014 016"),
    "S0-107": ("SENTRY_AUTH_TOKEN", "020"),
}


@pytest.mark.parametrize(
    ("name", "steps"), [pytest.param(*row, id=requirement) for requirement, row in ENVIRONMENT.items()]
)
def test_each_variable_is_required_by_the_tasks_that_use_it(book: Book, name: str, steps: str) -> None:
    """A task cannot start before the variables it uses are there, and the others do not wait for them."""
    needing = [step.id[-3:] for step in book.graph.steps if name in step.requires_env]
    assert set(steps.split()) - {"015"} <= set(needing)
    assert "001" not in needing
    assert name in book.environment()


def test_s0_106_s0_107_sentry_is_optional(book: Book) -> None:
    """A DSN of one's own is handed on where there is one, and all of Sentry may be missing."""
    step = book.graph.step("TASK-020")
    assert step.optional
    assert step.action is not None
    assert "SENTRY_DSN" in step.action.meta["env"]
    assert "SENTRY_DSN" not in book.environment()


# What the tasks do

CHECKS = {
    "001": "npm ls",
    "002": "serverExternalPackages",
    "003": "export default",
    "004": '"npm","run","build"',
    "005": "ACTIVE_HEALTHY",
    "006": "schema_migrations",
    "007": "rowsecurity",
    "008": "pg_tables",
    "009": "/v1/instance",
    "010": "api.shop.example",
    "011": "user.updated",
    "012": ".vercel/project.json",
    "013": "DIRECT_URL",
    "014": '"inspect","https://preview.example","--wait"',
    "015": "https://preview.example/dashboard",
    "016": "https://shop.example/",
    "017": "/domains/api.shop.example",
    "018": "misconfigured",
    "019": "https://api.shop.example/api/health",
    "020": "dsn.public",
    "021": "/_vercel/insights/script.js",
    "022": "shop-logs",
    "023": "/api/orchestrator/v3/deploy",
    "024": "state.totalTasks",
    "025": "https://router.example/health",
    "026": '"at_most":5000000',
    "027": ".webp",
    "028": "export const revalidate",
    "029": "unindexed",
    "030": "content-security-policy",
    "031": "429",
    "032": "metadata.vulnerabilities.critical",
    "033": "401",
    "034": "/api/webhooks/clerk",
    "035": "width=device-width",
    "036": "http.codes.200",
    "037": "seconds",
    "038": "## Production",
    "039": "paths./api/orchestrator/v3/status",
    "040": "## Roll back",
    "041": "run1",
    "042": "3.0.0",
}
"""What each verify looks for, as it is sent."""

ACTS = {
    "001": "npm install",
    "006": "supabase db push",
    "012": '"vercel","link"',
    "014": '"vercel","--yes"',
    "016": '"vercel","--prod"',
    "032": '"npm","audit"',
    "036": "artillery",
    "042": '"vercel","--prod"',
}
"""The commands that were named."""


@pytest.mark.parametrize("number", [row[1] for row in TASKS])
def test_each_verify_looks_at_what_was_specified(book: Book, number: str) -> None:
    """What the specification says to check is what the verify checks, and what it says to run is run."""
    step = book.graph.step(f"TASK-{number}")
    looked = msgspec.json.encode([filled(book, action) for action in step.verify]).decode()
    assert CHECKS[number] in looked
    if number in ACTS:
        assert step.action is not None
        assert ACTS[number] in msgspec.json.encode(filled(book, step.action)).decode()


def test_every_task_of_it_can_be_filled(book: Book) -> None:
    """With the required parameters and the results of earlier tasks no reference is left open."""
    count = 0
    for step in book.graph.steps:
        for action in actions(step):
            text = msgspec.json.encode(filled(book, action)).decode()
            assert "${params" not in text
            assert "${steps" not in text
            assert "${run" not in text
            count += 1
    assert count > 120


def test_only_the_runner_is_asked(book: Book) -> None:
    """The whole launch is commands, calls and files: no capability that is not there yet."""
    used = Counter(action.capability for step in book.graph.steps for action in actions(step))
    assert set(used) == {"command.run", "http.call", "file.change", "file.check"}


def test_every_service_is_configurable(book: Book) -> None:
    """Each URL begins with a parameter, a variable or a result: a stand-in can take any service's place."""
    kinds = set()
    for step in book.graph.steps:
        for action in actions(step):
            url = action.meta.get("url")
            if url is not None:
                first = next(references(url)).reference
                assert first is not None
                assert url.startswith(str(first)), url
                kinds.add(first.name)
    apis = {"supabase_api", "clerk_api", "vercel_api", "dns_api", "sentry_api", "site_url", "api_url"}
    assert apis <= kinds


def test_no_secret_is_an_argument_or_in_a_file(book: Book) -> None:
    """Variables are named where the runner puts them in, and handed on by name to commands."""
    for step in book.graph.steps:
        for action in actions(step):
            meta = action.meta
            named = {
                one.reference.name
                for one in references(meta)
                if one.reference and one.reference.kind == "env"
            }
            assert named == set(meta.get("secrets", []))
            assert not (named and action.capability in ("file.change", "file.check"))
            assert named | set(step.requires_env) == set(step.requires_env)


def test_answers_with_secrets_are_not_kept(book: Book) -> None:
    """What could say a secret back (variables of the project, sign-in links) is not in the result."""
    for step in book.graph.steps:
        for action in actions(step):
            url = action.meta.get("url", "")
            if "/env?" in url or "svix_url" in url or "/rest/v1" in url:
                assert action.meta["keep"] == []
    created = book.graph.step("TASK-005").action
    assert created is not None
    assert set(created.meta["keep"]) == {"id", "name", "region", "status"}


def test_what_only_a_person_can_do_says_how(book: Book) -> None:
    """Three tasks wait for a person, and tell what to do with which name; nothing else waits."""
    asking = {step.id[-3:]: step.approval for step in book.graph.steps if step.approval}
    assert set(asking) == {"009", "011", "021"}
    for text in asking.values():
        assert "dashboard" in text
        assert "approve this step" in text
    assert not book.graph.step("TASK-009").action


def test_what_is_made_outside_can_be_taken_back(book: Book) -> None:
    """Domains, records, drains, deployments and files have an undo."""
    undone = {step.id[-3:] for step in book.graph.steps if step.undo}
    files = {"002", "003", "012", "038", "039", "040", "041"}
    assert undone == files | {"001", "010", "016", "017", "018", "022", "023", "030", "042"}


def test_s0_137_the_seed_s_own_failure_has_a_fix(book: Book) -> None:
    """When the tables are there already, a fix records the migrations as applied."""
    (fix,) = book.graph.step("TASK-006").fixes
    assert fix.when in "Migration error - table already exists"
    assert fix.action.meta["run"][-4:] == ["repair", "--status", "applied", "--yes"]


def test_a_project_is_created_at_most_once(book: Book) -> None:
    """What would cost twice if it were done twice is tried once."""
    assert book.graph.step("TASK-005").attempts == 1


def test_it_is_a_graph_like_any_other(book: Book) -> None:
    """Its JSON is read back to the same graph, with the same digest."""
    again = parse_graph(book.graph.document(), [param.name for param in book.params])
    assert again == book.graph
    assert again.digest == book.graph.digest == load("launch").graph.digest


def test_d7_an_edited_book_has_another_digest(book: Book, tmp_path: Path) -> None:
    """A run is pinned to the digest of its graph: one changed word makes another."""
    text = (
        (BOOKS / "launch.yaml")
        .read_text()
        .replace("lacks: [http.codes.5, errors.E]", "lacks: [http.codes.5]")
    )
    (tmp_path / "launch.yaml").write_text(text)
    assert load("launch", tmp_path).graph.digest != book.graph.digest


# Its scripts, run for real


def run(
    book: Book, folder: Path, action: Action | None, env: dict[str, str] | None = None, **params: str
) -> Any:
    """Run a command of the book in a folder, as a runner does, and return what it wrote."""
    assert action is not None
    meta = filled(book, action, **params)
    argv = ["sh", "-c", *meta["run"]] if meta.get("shell") else meta["run"]
    handed = {name: value for name, value in (env or {}).items() if name in meta.get("env", [])}
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        argv,
        cwd=folder,
        env={"PATH": path, **handed, **meta.get("set", {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a folder with a page, and programs in the place of npx and npm that note what they are asked."""
    for name in ("npx", "npm"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> asked.log\n')
        program.chmod(0o755)
    (tmp_path / "app").mkdir()
    (tmp_path / "app/page.tsx").write_text("export default () => null;\n")
    return tmp_path


class Services(BaseHTTPRequestHandler):
    """Stands in for the services that scripts call, and keeps what it was sent."""

    seen: list[tuple[str, str, str, Any]]

    def answer(self) -> None:
        """Answer as the service at that path would."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        said = json.loads(body) if body else None
        self.seen.append((self.command, self.path, self.headers.get("authorization", ""), said))
        status = 200
        value: Any = {}
        if self.path.endswith("/keys/"):
            value = [{"isActive": True, "dsn": {"public": "https://key@sentry.example/1"}}]
        elif self.path.endswith("/projects/"):
            status = 409
        elif self.path == "/openapi.json":
            value = {"openapi": "3.1.0"}
        elif self.path == "/closed":
            status = 401
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    do_GET = do_POST = answer  # noqa: N815 -- what the server calls them

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write nothing."""


@pytest.fixture
def services() -> Iterator[tuple[str, list[tuple[str, str, str, Any]]]]:
    """Give the address of the stand-in, and what it has been sent."""
    handler = type("Here", (Services,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler.seen  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def test_packages_are_words_and_not_a_script(book: Book, project: Path) -> None:
    """TASK-001 hands the packages over as arguments, and what looks like a script in them is none."""
    step = book.graph.step("TASK-001")
    run(book, project, step.action, packages="a @b/c", type_packages="@types/d")
    asked = (project / "asked.log").read_text()
    assert asked == "npm install a @b/c\nnpm install --save-dev @types/d\n"


def test_a_page_is_made_to_be_rendered_again_only_once(book: Book, project: Path) -> None:
    """TASK-028 adds the time to the page, and not a second one when it is done again."""
    step = book.graph.step("TASK-028")
    run(book, project, step.action)
    run(book, project, step.action)
    assert (project / "app/page.tsx").read_text().count("export const revalidate = 3600;") == 1


@needs_node
def test_the_policy_goes_into_the_configuration(book: Book, project: Path) -> None:
    """TASK-030 writes the header beside what is there, replaces an earlier one, and deploys."""
    kept = {"source": "/x", "headers": [{"key": "A", "value": "b"}]}
    (project / "vercel.json").write_text(json.dumps({"regions": ["fra1"], "headers": [kept]}))
    step = book.graph.step("TASK-030")
    run(book, project, step.action, content_security_policy="default-src 'none'")
    run(book, project, step.action, content_security_policy="default-src 'self'")
    rule = {"source": "/(.*)", "headers": [{"key": "Content-Security-Policy", "value": "default-src 'self'"}]}
    assert json.loads((project / "vercel.json").read_text()) == {"regions": ["fra1"], "headers": [kept, rule]}
    assert (project / "asked.log").read_text() == "npx --yes vercel --prod --yes\n" * 2


@needs_node
def test_the_route_of_the_orchestrator_is_written(book: Book, project: Path) -> None:
    """TASK-023 writes a route that calls this router, deploys it, and takes both back."""
    step = book.graph.step("TASK-023")
    run(book, project, step.action)
    route = project / "app/api/orchestrator/v3/[...path]/route.ts"
    assert 'fetch("https://router.example" + pathname + search' in route.read_text()
    assert (project / "asked.log").read_text() == "npx --yes vercel --prod --yes\n"
    run(book, project, step.undo)
    assert not route.exists()
    assert (project / "asked.log").read_text().endswith("npx --yes vercel rollback --yes\n")


@needs_node
def test_the_bundle_is_measured(book: Book, project: Path) -> None:
    """TASK-026 counts the bytes of the scripts that are there."""
    (project / ".next/static/chunks").mkdir(parents=True)
    (project / ".next/static/chunks/a.js").write_text("x" * 100)
    (project / ".next/static/b.js").write_text("y" * 23)
    (project / ".next/static/c.css").write_text("z")
    assert run(book, project, book.graph.step("TASK-026").verify[0]) == {"scripts": 2, "bytes": 123}


@needs_node
def test_images_get_a_smaller_form(book: Book, project: Path) -> None:
    """TASK-027 makes a WebP of every image that has none, and its verify sees which are missing."""
    step = book.graph.step("TASK-027")
    assert run(book, project, step.verify[0]) == {"images": 0, "missing": []}
    (project / "public/deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.JPG", "c.svg"):
        (project / "public" / name).write_text(name)
    assert run(book, project, step.verify[0]) == {"images": 2, "missing": ["a.png", "deep/b.JPG"]}
    (project / "node_modules").mkdir()
    (project / "node_modules/sharp.js").write_text(
        "const fs = require('fs'); module.exports = (from) => ({ webp: () => ({ toFile: async (to) =>"
        " fs.copyFileSync(from, to) }) });"
    )
    run(book, project, step.action)
    assert run(book, project, step.verify[0]) == {"images": 2, "missing": []}
    assert (project / "public/deep/b.webp").read_text() == "deep/b.JPG"


@needs_node
def test_open_routes_are_found(book: Book, project: Path, services: Any) -> None:
    """TASK-033 lists the routes that answer without a key."""
    url, _ = services
    action = book.graph.step("TASK-033").action
    assert action is not None
    meta = action.meta["set"] | {"PATHS": '["/closed", "/open"] '}
    changed = msgspec.structs.replace(action, meta=action.meta | {"set": meta})
    assert run(book, project, changed, site_url=url) == {"open": [{"path": "/open", "status": 200}]}


@needs_node
def test_sentry_is_set_up(book: Book, project: Path, services: Any) -> None:
    """TASK-020 makes the project unless it is there, and gives its DSN to the site without a word."""
    url, seen = services
    env = {
        "SENTRY_AUTH_TOKEN": "st",
        "VERCEL_TOKEN": "vt",
        "VERCEL_ORG_ID": "team_1",
        "VERCEL_PROJECT_ID": "prj_1",
    }
    action = book.graph.step("TASK-020").action
    assert run(book, project, action, env, sentry_api=url, vercel_api=url) == ""
    made = {"name": "shop", "slug": "shop", "platform": "javascript-nextjs"}
    dsn = {
        "key": "SENTRY_DSN",
        "value": "https://key@sentry.example/1",
        "type": "encrypted",
        "target": ["production"],
    }
    assert seen == [
        ("POST", "/api/0/teams/org/web/projects/", "Bearer st", made),
        ("GET", "/api/0/projects/org/shop/keys/", "Bearer st", None),
        ("POST", "/v10/projects/prj_1/env?upsert=true&teamId=team_1", "Bearer vt", [dsn]),
    ]


@needs_node
def test_the_description_of_the_api_is_saved(book: Book, project: Path, services: Any) -> None:
    """TASK-039 writes down what the router says of itself."""
    url, seen = services
    action = book.graph.step("TASK-039").action
    run(book, project, action, {"AUTOPILOT_API_KEY": "key"}, orchestrator_url=url)
    assert json.loads((project / "docs/openapi.json").read_text()) == {"openapi": "3.1.0"}
    assert seen == [("GET", "/openapi.json", "Bearer key", None)]
