"""cluster.yaml, validated with Ray's own checks and an emulated AWS, without network access.

The emulation (moto) knows AWS's real instance types, builds the CloudFormation stack, and
checks each request's parameters as AWS's own client does. Ray's code runs as in `ray up`, up to
the launch of a machine.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from jsonschema import ValidationError
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.wheels import build_wheel

ROOT = Path(__file__).parents[2]
REGION = "us-west-2"
OWNER = "203.0.113.7/32"
IMAGE_PARAMETER = "/images/nodes"
GPU_TYPES = ["gpu_worker", "gpu_spot_worker"]


def read_cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty AWS account, and a temporary home folder."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    with mock_aws():
        yield


@pytest.fixture
def stack(aws: None) -> None:
    deploy_stack()


def deploy_stack() -> None:
    """Deploy the stack, with a parameter of our own in place of AWS's public one."""
    template = (ROOT / "cloud/aws-stack.yaml").read_text()
    template, count = re.subn(r"(Default: )/aws/service/\S+", rf"\1{IMAGE_PARAMETER}", template)
    assert count == 1
    image = boto3.client("ec2").describe_images()["Images"][0]["ImageId"]
    boto3.client("ssm").put_parameter(Name=IMAGE_PARAMETER, Value=image, Type="String")
    boto3.client("cloudformation").create_stack(
        StackName="distributed-avel",
        TemplateBody=template,
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[
            {"ParameterKey": "Bucket", "ParameterValue": "some-bucket"},
            {"ParameterKey": "SshFrom", "ParameterValue": OWNER},
        ],
    )


@pytest.fixture
def launched(stack: None) -> dict[str, Any]:
    """The configuration as Ray completes it before it launches the first machine."""
    return _bootstrap_config(read_cluster(), no_config_cache=True)


def test_ray_accepts_the_file():
    config = prepare_config(read_cluster())

    validate_config(config)

    assert config["head_setup_commands"][:-2] == config["worker_setup_commands"]


def test_ray_refuses_the_file_with_a_misspelt_key():
    config = read_cluster()
    config["idle_timeout_minuts"] = config.pop("idle_timeout_minutes")

    with pytest.raises(ValidationError, match="idle_timeout_minuts"):
        validate_config(prepare_config(config))


def test_workers_start_on_demand_and_stop_when_idle():
    config = prepare_config(read_cluster())
    workers = {name: t for name, t in config["available_node_types"].items() if name != "head"}

    assert config["available_node_types"]["head"]["max_workers"] == 0
    assert all(worker["min_workers"] == 0 for worker in workers.values())
    assert 0 < sum(worker["max_workers"] for worker in workers.values()) <= config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 30
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.usefixtures("aws")
def test_declared_resources_match_the_instance_types():
    for name, node_type in read_cluster()["available_node_types"].items():
        instance = node_type["node_config"]["InstanceType"]
        (info,) = boto3.client("ec2").describe_instance_types(InstanceTypes=[instance])[
            "InstanceTypes"
        ]
        gpus = sum(gpu["Count"] for gpu in info.get("GpuInfo", {}).get("Gpus", []))
        expected = {"CPU": info["VCpuInfo"]["DefaultVCpus"], "GPU": gpus}

        assert {"GPU": 0, **node_type["resources"]} == expected, name
        assert bool(gpus) == (name in GPU_TYPES)


def test_only_the_owner_can_reach_a_node_and_only_by_ssh(launched):
    groups = {
        group
        for node_type in launched["available_node_types"].values()
        for group in node_type["node_config"]["SecurityGroupIds"]
    }
    rules = [
        rule
        for group in boto3.client("ec2").describe_security_groups(GroupIds=sorted(groups))[
            "SecurityGroups"
        ]
        for rule in group["IpPermissions"]
    ]
    from_outside = [rule for rule in rules if rule["IpRanges"] or rule["Ipv6Ranges"]]
    from_groups = {pair["GroupId"] for rule in rules for pair in rule["UserIdGroupPairs"]}

    assert [(r["FromPort"], r["ToPort"], r["IpRanges"], r["Ipv6Ranges"]) for r in from_outside] == [
        (22, 22, [{"CidrIp": OWNER}], [])
    ]
    assert from_groups == groups


@pytest.mark.usefixtures("aws")
def test_without_the_stack_nothing_is_launched_and_no_port_is_opened():
    with pytest.raises(ClientError, match="launch template"):
        _bootstrap_config(read_cluster(), no_config_cache=True)

    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    assert not [rule for group in groups for rule in group["IpPermissions"]]


@pytest.mark.parametrize("anybody", ["0.0.0.0/0", "10.0.0.0/8", "::/0", "203.0.113.7"])
def test_the_stack_refuses_wide_address_ranges_for_ssh(anybody):
    template = (ROOT / "cloud/aws-stack.yaml").read_text()
    (pattern,) = re.findall(r"AllowedPattern: (\S+)", template)

    assert re.fullmatch(pattern, OWNER)
    assert not re.fullmatch(pattern, anybody)


def test_machines_use_the_image_and_role_of_the_stack(launched):
    provider = AWSNodeProvider(launched["provider"], launched["cluster_name"])
    image = boto3.client("ssm").get_parameter(Name=IMAGE_PARAMETER)["Parameter"]["Value"]

    for name, node_type in launched["available_node_types"].items():
        created = provider.create_node(node_type["node_config"], {"ray-node-type": name}, count=1)

        found = boto3.client("ec2").describe_instances(InstanceIds=list(created))
        (node,) = found["Reservations"][0]["Instances"]
        profile = "HeadProfile" if name == "head" else "WorkerProfile"
        assert f"distributed-avel-{profile}" in node["IamInstanceProfile"]["Arn"]
        assert node["ImageId"] == image
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert node.get("InstanceLifecycle") == ("spot" if name == "gpu_spot_worker" else None)


@pytest.mark.usefixtures("stack")
def test_workers_have_access_to_the_bucket_only():
    iam = boto3.client("iam")
    (worker,) = [r["RoleName"] for r in iam.list_roles()["Roles"] if "WorkerRole" in r["RoleName"]]
    (policy,) = iam.list_attached_role_policies(RoleName=worker)["AttachedPolicies"]
    arn = policy["PolicyArn"]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]

    assert not iam.list_role_policies(RoleName=worker)["PolicyNames"]
    assert {statement["Resource"] for statement in document["Statement"]} == {
        "arn:aws:s3:::some-bucket",
        "arn:aws:s3:::some-bucket/*",
    }


def test_the_mounted_files_suffice_to_install_the_project(tmp_path):
    """The setup commands run pip on the mounted files only, with the pinned versions."""
    config = prepare_config(read_cluster())
    source = tmp_path / "distributed_avel"
    source.mkdir()
    for remote, local in config["file_mounts"].items():
        if not remote.startswith("~/distributed_avel/"):
            continue
        target = source / remote.removeprefix("~/distributed_avel/")
        copy = shutil.copytree if (ROOT / local).is_dir() else shutil.copy
        copy(ROOT / local, target)

    install = "~/venv/bin/pip install -q -c ~/distributed_avel/constraints.txt ~/distributed_avel"
    assert install in config["head_setup_commands"]
    assert install in config["worker_setup_commands"]
    assert (source / "constraints.txt").exists()
    assert "distributed_avel/config/sections.py" in build_wheel(source, tmp_path / "wheel")


def test_repeated_setup_of_a_node_adds_nothing_to_bashrc(tmp_path):
    """`ray up` runs the setup again when a file has changed."""
    commands = prepare_config(read_cluster())["head_setup_commands"]
    into_bashrc = [command for command in commands if "~/.bashrc" in command]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    (tmp_path / ".bashrc").touch()

    for command in [*into_bashrc, *into_bashrc]:
        subprocess.run(["bash", "-c", command], env=environment, check=True)

    show = "source ~/.bashrc; echo $PATH; echo $RAY_AUTH_MODE; echo $MLFLOW_TRACKING_URI"
    shell = subprocess.run(
        ["bash", "-c", show], env=environment, check=True, capture_output=True, text=True
    )
    assert shell.stdout.splitlines() == [
        f"{tmp_path}/venv/bin:{os.environ['PATH']}",
        "token",
        f"sqlite:///{tmp_path}/mlflow.db",
    ]
    assert len((tmp_path / ".bashrc").read_text().splitlines()) == len(into_bashrc) == 2


def test_ray_starts_with_a_token_and_the_dashboard_on_loopback():
    config = prepare_config(read_cluster())
    starts = [
        command
        for kind in ("head", "worker")
        for command in config[f"{kind}_start_ray_commands"]
        if "ray start" in command
    ]

    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts[0]
    assert "0.0.0.0" not in "".join(starts)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
