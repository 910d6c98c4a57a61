"""One typed tree: variables over the file over defaults; what cannot work is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import worker
from tests.support.cli import moderation_worker
from worker.errors import ConfigurationError
from worker.settings import Settings, load_settings
from worker.settings.load import RETIRED, Retired, without_retired
from worker.settings.reference import effective, every_setting, reference_page
from worker.settings.sections import Section

SECRET = "hunter2-is-a-secret"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests stay out."""
    for name in [each for each in os.environ if each.upper().startswith("MODERATION_")]:
        monkeypatch.delenv(name)


def refused(tmp_path: Path, text: str | bytes) -> str:
    """The message about a file that cannot be used."""
    file = tmp_path / "worker.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    message = str(caught.value)
    assert str(file) in message
    assert SECRET not in message
    return message


@pytest.mark.parametrize(
    "path",
    [
        *("delivery", "kafka.bootstrap_servers", "kafka.group_id", "kafka.security.protocol"),
        *("kafka.security.username", "kafka.security.password_file", "kafka.security.ca_file"),
        *("log.backend", "log.directory", "topics.verdicts", "topics.quarantine"),
        *("topics.dead_letter", "topics.shadow", "store.backend", "store.endpoint_url"),
        *("store.region", "store.buckets", "store.prefixes", "store.directory", "judge.backend"),
        *("judge.model", "judge.revision", "judge.adapter", "judge.device", "judge.dtype"),
        *("judge.max_context", "policies.directory", "telemetry.log_level", "web.host"),
        *("web.port",),
    ],
)
def test_the_names_that_deployments_are_written_with_are_there(path: str) -> None:
    """Renaming one of them breaks every deployment."""
    value: Any = Settings()
    for name in path.split("."):
        assert name in type(value).model_fields
        value = getattr(value, name)


def test_every_setting_says_what_it_means() -> None:
    """The chart's reference and the error messages are made of these words."""

    def undocumented(kind: type[Section], above: str) -> list[str]:
        missing = []
        for name, field in kind.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                missing += undocumented(field.annotation, f"{above}{name}.")
            elif not field.description:
                missing.append(above + name)
        return missing

    assert undocumented(Settings, "") == []  # type: ignore[arg-type]


def test_variables_stand_over_the_file_and_the_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order, field by field: a variable for one field leaves its section's others alone."""
    file = tmp_path / "worker.yaml"
    file.write_text("kafka: {group_id: of-the-file, client_id: of-the-file}\n")
    monkeypatch.setenv("MODERATION_KAFKA__GROUP_ID", "of-the-environment")
    kafka = load_settings(file).kafka
    assert (kafka.group_id, kafka.client_id) == ("of-the-environment", "of-the-file")
    assert kafka.session_timeout_s == Settings().kafka.session_timeout_s


@pytest.mark.parametrize("value", ["pictures, more", '["pictures", "more"]'])
def test_a_list_in_a_variable_is_names_with_commas_or_json(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People write the first, templates the second."""
    monkeypatch.setenv("MODERATION_STORE__BUCKETS", value)
    assert load_settings().store.buckets == ("pictures", "more")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"kafka: [{SECRET}", ":1: not YAML"),
        (f"kafka:\n  security: {{password: *{SECRET}}}", ":2: not YAML"),
        (
            f"kafka:\n  security: {{password: !{SECRET} x}}",
            ":2: kafka.security.password: a YAML tag",
        ),
        (f"- {SECRET}\n", ":1: not a mapping of fields"),
        (b"\xff\xfe" + SECRET.encode(), "in UTF-8"),
        (
            "log: {backend: local}\nlog: {}\n",
            ":2: log: the field is given twice. It stands in line 1",
        ),
        ("kafka:\n  bootstrap_server: a:1\n", ":2: kafka.bootstrap_server: no setting has this"),
        ("kafka:\n  bootstrap_server: a:1\n", "did you mean `bootstrap_servers`?"),
        (f"kafka:\n  security:\n    pasword: {SECRET}\n", "did you mean `password`?"),
        ("kafak: {}\n", "did you mean `kafka`?"),
        (f"kafka: {SECRET}\n", ":1: kafka: this is a section"),
        (f"log: {{backend: {SECRET}}}\n", ":1: log.backend: Input should be 'kafka' or 'local'"),
        (f"web: {{port: {SECRET}}}\n", ":1: web.port: Input should be a valid integer"),
        ("judge: {max_context: 200000}\n", "judge.max_context: Input should be less than"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_line_field_and_fix(
    text: str | bytes, says: str, tmp_path: Path
) -> None:
    """Values are never repeated: one of them may be a password."""
    assert says in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MODERATION_KAFAK__GROUP_ID", SECRET, "did you mean `kafka`?"),
        ("MODERATION_KAFKA__GROUPID", SECRET, "did you mean `group_id`?"),
        ("MODERATION_KAFKA__SECURITY__PASSWRD", SECRET, "did you mean `password`?"),
        ("MODERATION_WEB__PORT", SECRET, "web.port: Input should be a valid integer"),
        ("MODERATION_KAFKA", f'{{"{SECRET}', "is not JSON"),
        ("MODERATION_STORE__BUCKETS", f'["{SECRET}', "not a JSON list"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typo in a variable must not become a default."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert says in str(caught.value)
    assert "environment" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_variables_that_kubernetes_makes_of_services_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service named `moderation` puts these into every pod beside it."""
    monkeypatch.setenv("MODERATION_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("MODERATION_SERVICE_HOST", "10.0.0.1")
    assert load_settings().model_dump() == Settings().model_dump()


SASL = {"protocol": "SASL_SSL", "username": "u", "password": SECRET}


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"kafka": {"security": {"protocol": "SASL_SSL"}}}, "kafka.security.username"),
        ({"kafka": {"security": SASL | {"username": None}}}, "kafka.security.username"),
        ({"kafka": {"security": SASL | {"protocol": "SSL"}}}, "proves no user"),
        ({"kafka": {"security": SASL | {"password_file": "p"}}}, "not both"),
        ({"kafka": {"security": {"ca_file": "ca.pem"}}}, "encrypts nothing"),
        ({"kafka": {"security": {"protocol": "SSL", "key_file": "k"}}}, "certificate_file"),
        ({"kafka": {"bootstrap_servers": ""}}, "kafka.bootstrap_servers"),
        ({"kafka": {"group_id": " "}}, "kafka.group_id"),
        ({"stream": {"drain_s": 120}}, "kafka.rebalance_timeout_s"),
        ({"kafka": {"max_message_bytes": 10 * 1024 * 1024}}, "stream.max_event_bytes"),
        ({"stream": {"max_bytes": 1024}}, "stream.max_bytes"),
        ({"stream": {"poison_isolate_after": 4}}, "stream.poison_give_up_after"),
        ({"stream": {"retry_initial_s": 60}}, "stream.retry_max_s"),
        ({"topics": {"quarantine": "moderation.verdicts"}}, "a name of its own"),
        ({"topics": {"shadow": "a topic"}}, "topics.shadow"),
        ({"judge": {"context_budget": 8192}}, "judge.max_context"),
        ({"judge": {"engine": "plain", "numerics": "int8"}}, "judge.engine"),
        ({"judge": {"backend": "remote"}}, "judge.remote.base_url"),
        ({"judge": {"backend": "remote", "adapter": "a"}}, "judge.remote.model"),
        ({"judge": {"backend": "remote", "batch_deadline_s": 30}}, "judge.remote.timeout_s"),
    ],
)
def test_impossible_combinations_are_refused_naming_the_settings(
    overrides: dict[str, Any], names: str
) -> None:
    """Found at start, not at the first event."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    assert names in str(caught.value)
    assert SECRET not in str(caught.value)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """Not one a start."""
    message = refused(tmp_path, "web:\n  port: x\nlog:\n  backend: y\ntopics:\n  z: 1\n")
    for line in (":2: web.port", ":4: log.backend", ":6: topics.z"):
        assert line in message


def test_secrets_are_in_no_rendering_of_the_settings() -> None:
    """Whatever prints a settings tree, prints no password."""
    remote = {"backend": "remote", "remote": {"base_url": "http://a/v1", "api_key": SECRET}}
    settings = load_settings(kafka={"security": SASL}, judge=remote)
    for text in (repr(settings), str(settings.kafka), settings.model_dump_json()):
        assert SECRET not in text
    assert settings.kafka.security.password is not None
    assert settings.kafka.security.password.get_secret_value() == SECRET


def test_a_command_prints_what_is_wrong_and_no_traceback(tmp_path: Path) -> None:
    """Exit code 2: correct the settings; the same for a worker under Faust's own command."""
    file = tmp_path / "worker.yaml"
    file.write_text("kafka: [1\n")
    for command in ("run", "doctor", "judge"):
        answer = moderation_worker(command, "--config", file, stdin=b"")
        assert answer.code == 2, answer.err
        assert f"{file}:1: not YAML" in answer.err or f"{file}:2: not YAML" in answer.err
        assert "Traceback" not in answer.err


def test_a_fault_of_yaml_shows_the_line_and_no_value(tmp_path: Path) -> None:
    """The name of the field and a caret; what stands behind it may be a password."""
    message = refused(tmp_path, f"kafka:\n  security:\n    password: a: {SECRET}\n")
    assert message.splitlines()[1:] == ["    3 |     password: …", "                       ^"]


GONE = (
    Retired("stream.gone", None, "nobody could set it well"),
    Retired("web.moved", "telemetry.moved_here", "it belongs there"),
)


def test_a_retired_setting_is_read_with_a_warning_that_names_its_successor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An upgrade must start: what is gone is left out, what has moved is moved."""
    given = {"stream": {"gone": 1, "drain_s": 2}, "web": {"moved": 3}}
    kept = without_retired(given, lambda each: f"f: {each.path}", GONE)
    assert kept == {"stream": {"drain_s": 2}, "web": {}, "telemetry": {"moved_here": 3}}
    assert given["stream"]["gone"] == 1
    assert "f: stream.gone is retired" in caplog.text
    assert "use telemetry.moved_here" in caplog.text


def test_a_successor_that_is_set_itself_stands() -> None:
    """Both are there while a deployment changes over."""
    given = {"web": {"moved": 3}, "telemetry": {"moved_here": 4}}
    assert without_retired(given, lambda each: each.path, GONE)["telemetry"] == {"moved_here": 4}


@pytest.mark.parametrize("variable", [False, True])
def test_settings_of_the_release_before_are_still_read(
    variable: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a file and in the environment, each by the name it has there."""
    file = tmp_path / "worker.yaml"
    file.write_text("" if variable else "stream: {commit_max_events: 5}\n")
    if variable:
        monkeypatch.setenv("MODERATION_STREAM__COMMIT_MAX_EVENTS", "5")
    assert load_settings(file).stream == Settings().stream
    name = "MODERATION_STREAM__COMMIT_MAX_EVENTS" if variable else "stream.commit_max_events"
    assert f"{name} is retired" in caplog.text


def test_no_setting_is_retired_and_there_at_once() -> None:
    """A successor is a setting, and what is retired is none any more."""
    there = {each.path for each in every_setting()}
    assert not {each.path for each in RETIRED} & there
    assert {each.successor for each in RETIRED} - {None} <= there


def test_the_page_about_settings_is_up_to_date() -> None:
    """Mend with: moderation-worker settings explain --all > docs/settings.md"""
    page = Path(worker.__file__).parents[1] / "docs" / "settings.md"
    assert page.read_text() == reference_page()


def test_settings_can_be_asked_what_they_are_and_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Effective values with their sources; a secret is hidden wherever it comes from."""
    file = tmp_path / "worker.yaml"
    file.write_text(
        "web: {port: 7}\nkafka:\n  group_id: g\n  security:\n    protocol: SASL_SSL\n"
        f"    username: u\n    password: {SECRET}\n"
    )
    monkeypatch.setenv("MODERATION_KAFKA__GROUP_ID", "of-the-environment")
    found = {each.path: each for each in effective(file)}
    assert (found["web.port"].value, found["web.port"].source) == (7, f"{file}:1")
    assert found["kafka.group_id"].source == "MODERATION_KAFKA__GROUP_ID"
    assert found["kafka.security.password"].source == f"{file}:7"
    assert found["store.threads"].source == "default"
    answer = moderation_worker("settings", "show", "--config", file, "--json")
    assert answer.code == 0
    assert SECRET not in answer.out + answer.err
    shown = {each["path"]: each for each in json.loads(answer.out)["settings"]}
    assert shown["kafka.security.password"]["value"] == "**********"
    assert shown["web.port"]["value"] == 7


def test_a_setting_is_explained_and_a_wrong_name_is_mended() -> None:
    """Meaning, values, default and variable; exit code 2 with the nearest name."""
    answer = moderation_worker("settings", "explain", "judge.max_batch_tokens")
    assert "MODERATION_JUDGE__MAX_BATCH_TOKENS" in answer.out
    assert "16384" in answer.out
    wrong = moderation_worker("settings", "explain", "judge.max_batch_token")
    assert wrong.code == 2
    assert "did you mean `judge.max_batch_tokens`?" in wrong.err


def test_the_schema_knows_every_setting() -> None:
    """Editors complete from it."""
    answer = moderation_worker("settings", "schema")
    tree = json.loads(answer.out)
    assert set(tree["properties"]) == set(Settings.model_fields)
    assert tree["$defs"]["Kafka"]["properties"]["group_id"]["description"]
