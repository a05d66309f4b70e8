"""cluster.yaml is valid for Ray, opens nothing to the world, and prepares every node.

Every node gets the project and the token. Nothing here needs an account, a network or boto3: where
Ray's AWS provider is asked what it would do, its calls to AWS go to a double that writes them down.
"""

from __future__ import annotations

import copy
import fnmatch
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import PROJECT
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

Config = dict[str, Any]
"""A cluster file, or a part of one, as YAML reads it."""
FILE = PROJECT / "cluster.yaml"
WORLD = {"0.0.0.0/0", "::/0"}


@pytest.fixture
def written() -> Config:
    """The file as the user wrote it."""
    return yaml.safe_load(FILE.read_text())


@pytest.fixture
def prepared(written: Config) -> Config:
    """The file as `ray up` uses it, with Ray's defaults filled in."""
    return prepare_config(written)


def strings(value: object) -> Iterator[str]:
    """Every string in a tree of dicts and lists, keys included."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from strings(key)
            yield from strings(below)
    elif isinstance(value, list):
        for below in value:
            yield from strings(below)
    elif isinstance(value, str):
        yield value


def commands(config: Config, node: str) -> list[str]:
    """What runs on a new head or worker, in order.

    Ray has put the common setup in front of each node's own.
    """
    return [
        *config["initialization_commands"],
        *config[f"{node}_setup_commands"],
        *config[f"{node}_start_ray_commands"],
    ]


# --- valid ----------------------------------------------------------------------------------------


def test_ray_accepts_the_file(prepared: Config) -> None:
    validate_config(prepared)


def test_ray_accepts_what_the_head_gets(prepared: Config) -> None:
    """The head is handed the prepared configuration as JSON and prepares it again."""
    validate_config(prepare_config(json.loads(json.dumps(prepared))))


def test_ray_refuses_a_misspelt_field(written: Config) -> None:
    """The validation above is one that can fail."""
    written["max_wokers"] = written.pop("max_workers")
    with pytest.raises(Exception, match="max_wokers"):
        validate_config(prepare_config(written))


@pytest.mark.parametrize("node", ["head", "worker"])
def test_commands_are_bash(prepared: Config, node: str) -> None:
    for command in commands(prepared, node):
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_workers_start_on_demand_within_the_limit(prepared: Config) -> None:
    types_ = prepared["available_node_types"]
    assert all(each["min_workers"] == 0 for each in types_.values())
    assert all(each["max_workers"] <= prepared["max_workers"] for each in types_.values())
    assert types_[prepared["head_node_type"]]["max_workers"] == 0  # only the head itself is of the head's type


# --- nothing is open to the world -----------------------------------------------------------------


class Group:
    """A security group of the double."""

    def __init__(self, account: Account, name: str) -> None:
        self.account, self.group_name = account, name
        self.id, self.vpc_id, self.ip_permissions = "sg-made-by-ray", "vpc-1", []

    def authorize_ingress(self, IpPermissions: list[Config]) -> None:
        self.account.rules.extend(IpPermissions)


class Account:
    """An AWS account with one network and no security group; it keeps the rules it gets."""

    def __init__(self) -> None:
        self.rules: list[Config] = []
        self.groups: list[Group] = []
        self.subnets = self.security_groups = self.meta = self.client = self

    def filter(self, Filters: list[Config]) -> list[Group] | list[types.SimpleNamespace]:
        if Filters[0]["Name"] == "subnet-id":
            return [types.SimpleNamespace(vpc_id="vpc-1", subnet_id="subnet-1")]
        return self.groups

    def create_security_group(self, GroupName: str, **_: object) -> None:
        self.groups.append(Group(self, GroupName))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Ray's own code for AWS; where boto3 is not installed, empty modules let it be imported."""
    if importlib.util.find_spec("boto3") is None:
        empty: dict[str, dict[str, object]] = {
            "boto3": {"__version__": "1.28"},
            "boto3.exceptions": {"ResourceNotExistsError": Exception},
            "boto3.resources": {},
            "boto3.resources.base": {"ServiceResource": object},
            "botocore": {},
            "botocore.client": {"BaseClient": object},
            "botocore.config": {"Config": object},
        }
        for name, content in empty.items():
            module = types.ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
    before = set(sys.modules)
    yield importlib.import_module("ray.autoscaler._private.aws.config")
    # What was imported over the empty modules must not outlive them
    for name in set(sys.modules) - before:
        if name.startswith("ray.autoscaler._private.aws"):
            del sys.modules[name]


def rules_made(aws: types.ModuleType, config: Config, monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The inbound rules that `ray up` would ask AWS for.

    The subnets are those that it would have found before.
    """
    account = Account()
    monkeypatch.setattr(aws, "_resource", lambda name, config: account)
    config = copy.deepcopy(config)
    for each in config["available_node_types"].values():
        each["node_config"]["SubnetIds"] = ["subnet-1"]
    aws._configure_security_group(config)
    return account.rules


def test_ray_makes_no_inbound_rule(aws: types.ModuleType, prepared: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rules_made(aws, prepared, monkeypatch) == []


@pytest.mark.parametrize("node_type", ["head", "cpu_worker", "gpu_worker"])
def test_every_node_type_needs_its_group(
    aws: types.ModuleType, prepared: Config, monkeypatch: pytest.MonkeyPatch, node_type: str
) -> None:
    """The groups are named, since with one left out Ray opens ssh to the world.

    Also shows that the double would tell.
    """
    del prepared["available_node_types"][node_type]["node_config"]["SecurityGroupIds"]
    assert WORLD & set(strings(rules_made(aws, prepared, monkeypatch)))


def test_placeholders_stop_ray_up(
    aws: types.ModuleType, prepared: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray goes no further while the account has no such group, and makes none in its place."""
    account = Account()
    monkeypatch.setattr(aws, "_resource", lambda name, config: account)
    with pytest.raises(AssertionError):  # whose message Ray prints instead
        aws._configure_subnet(prepared)
    printed = "".join(capsys.readouterr())
    assert "Failed to detect a security group" in printed
    assert account.groups == account.rules == []


def test_no_rule_of_the_file_is_open(prepared: Config) -> None:
    assert not WORLD & set(strings(prepared))
    assert "security_group" not in prepared["provider"]  # would be added to Ray's open rule, not replace it
    assert not any(cidr in FILE.read_text() for cidr in WORLD)  # nor does a comment advise it
    for each in prepared["available_node_types"].values():
        assert each["node_config"]["SecurityGroupIds"]
        # These would carry groups of their own
        assert "NetworkInterfaces" not in each["node_config"]


def started(command: str) -> Config:
    """The options of the `ray start` in a command, as the installed Ray reads them.

    Nothing is started.
    """
    words = shlex.split(command.split("ray start", 1)[1].replace("$RAY_HEAD_IP", "10.0.0.1"))
    return start.make_context("ray start", words).params


def test_dashboard_listens_on_the_head_alone(prepared: Config) -> None:
    (command,) = (each for each in prepared["head_start_ray_commands"] if "ray start" in each)
    options = started(command)
    assert options["head"]
    assert options["dashboard_host"] == "127.0.0.1"
    assert options["ray_client_server_port"] is None
    assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"


def test_workers_join_the_head(prepared: Config) -> None:
    head, worker = (
        started(next(each for each in prepared[f"{node}_start_ray_commands"] if "ray start" in each))
        for node in ("head", "worker")
    )
    assert worker["address"] == f"10.0.0.1:{head['port']}"
    assert not worker["head"]


# --- the token ------------------------------------------------------------------------------------


def test_token_goes_to_every_node_before_ray_starts(prepared: Config) -> None:
    assert prepared["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert prepared["auth"]["ssh_user"] == "ubuntu"  # whose home that is


@pytest.mark.parametrize("node", ["head", "worker"])
def test_token_is_required_where_ray_starts(prepared: Config, node: str) -> None:
    starts = [each for each in prepared[f"{node}_start_ray_commands"] if "ray start" in each]
    assert starts
    for command in starts:
        before = command.split("ray start", 1)[0] + "echo mode=$RAY_AUTH_MODE"
        ran = subprocess.run(["bash", "-c", before], capture_output=True, text=True, check=True, env={})
        assert ran.stdout == "mode=token\n"


def at_home(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )


def test_every_shell_presents_the_token(prepared: Config, tmp_path: Path) -> None:
    """Run twice, as `ray up` does on a change, the line stands there once."""
    for _ in range(2):
        for command in prepared["initialization_commands"]:
            assert at_home(command, tmp_path).returncode == 0
    assert (tmp_path / ".bashrc").read_text().count("RAY_AUTH_MODE=token") == 1
    shown = at_home('source ~/.bashrc; echo "$RAY_AUTH_MODE $PATH"', tmp_path).stdout
    assert shown.startswith(f"token {tmp_path}/venv/bin:")


@pytest.mark.parametrize("node", ["head", "worker"])
def test_setup_ends_without_a_token(prepared: Config, tmp_path: Path, node: str) -> None:
    first = prepared[f"{node}_setup_commands"][0]
    assert at_home(first, tmp_path).returncode != 0
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.touch()
    assert at_home(first, tmp_path).returncode != 0  # an empty one is none
    token.write_text("secret")
    token.chmod(0o644)
    assert at_home(first, tmp_path).returncode == 0
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700


# --- the project ----------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["head", "worker"])
def test_project_is_installed_on_every_node(prepared: Config, node: str) -> None:
    (target,) = (remote for remote, local in prepared["file_mounts"].items() if local == ".")
    assert target == "/home/ubuntu/inputscape"
    installs = [
        each for each in prepared[f"{node}_setup_commands"] if re.search(r"python -m pip install .*-e \.", each)
    ]
    assert len(installs) == 1
    assert installs[0].startswith("cd ~/inputscape && ")


def test_workers_install_the_versions_of_the_head(prepared: Config) -> None:
    """What the head writes is in the folder it hands on, under a name that is not left out."""
    (frozen,) = (each for each in prepared["head_setup_commands"] if "pip freeze" in each)
    path = frozen.split("> ")[1]
    assert frozen.startswith("cd ~/inputscape && ")
    assert any(f"-c {path}" in each for each in prepared["worker_setup_commands"])
    assert not left_out(path, prepared["rsync_exclude"])


def left_out(path: str, patterns: list[str]) -> bool:
    """Whether rsync leaves out a path, which is relative to the project.

    A pattern that begins with / names one at the top alone, any other a part of the path at any
    depth. The file's patterns hold no further slash.
    """
    parts = path.split("/")
    for pattern in patterns:
        assert "/" not in pattern[1:]
        if pattern.startswith("/"):
            if fnmatch.fnmatch(parts[0], pattern[1:]):
                return True
        elif any(fnmatch.fnmatch(part, pattern) for part in parts):
            return True
    return False


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "results/noise/report.html",
        "artifacts/classifier/0/model.pt",
        ".venv/bin/python",
        "venv/bin/python",
        "inputscape.egg-info/PKG-INFO",
        "engine/__pycache__/store.cpython-311.pyc",
        ".mypy_cache/x",
        ".ruff_cache/x",
        ".pytest_cache/x",
        ".hypothesis/x",
    ],
)
def test_what_is_made_here_stays_here(prepared: Config, path: str) -> None:
    assert left_out(path, prepared["rsync_exclude"])


def test_the_project_goes_along_whole(prepared: Config) -> None:
    sources = [
        path.relative_to(PROJECT).as_posix()
        for room in ("tasks", "engine", "analysis", "sweeps")
        for path in (PROJECT / room).rglob("*")
        if path.is_file() and path.suffix in {".py", ".yaml", ".j2"}
    ]
    assert "tasks/parts/settings.py" in sources
    assert [
        path for path in [*sources, "pyproject.toml", "README.md"] if left_out(path, prepared["rsync_exclude"])
    ] == []


def test_what_the_file_names_is_there() -> None:
    """The sweep and the module that the comments tell to run, the project that is installed."""
    text = FILE.read_text()
    modules = set(re.findall(r"python -m ((?:engine|tasks|analysis)\.\w+)", text))
    sweeps = set(re.findall(r"\bsweeps/[\w.-]+\.yaml", text))
    assert modules
    assert sweeps
    paths = [f"{module.replace('.', '/')}.py" for module in modules] + sorted(sweeps) + ["pyproject.toml", ".gitignore"]
    assert [path for path in paths if not (PROJECT / path).is_file()] == []
