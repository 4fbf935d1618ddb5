"""The shipped Prometheus configuration: checked by promtool, and run by a real Prometheus against a running node and provider."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.metrics import Metrics
from lab.cloud import CONFIG, Cloud
from lab.libvirt_host import LibvirtHost
from lab.ports import free_port
from lab.process import Program
from lab.transcript import PATIENCE_S
from provider.meters import Meters

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's package prometheus"),
]


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration_and_rules_pass_promtool() -> None:
    assert "SUCCESS" in promtool("check", "config", str(CONFIG / "prometheus.yml"))


def test_alerts_lean_on_metrics_that_the_daemons_have() -> None:
    families = [*Metrics().registry.collect(), *Meters().registry.collect()]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    there = {family.name + ending for family in families for ending in endings[family.type]}
    asked = {name for rule in alerts().values() for name in re.findall(r"\beva_\w+", rule["expr"])}
    assert asked - there == set()
    assert len(asked) > 12


def test_alerts_name_reasons_that_the_node_counts() -> None:
    text = (CONFIG / "alerts.yml").read_text()
    exposed = Metrics().text().decode()
    reasons = re.findall(r'eva_sessions_ended_total\{reason="([\w-]+)"', text)
    assert reasons
    for reason in reasons:
        assert f'reason="{reason}"' in exposed
    for bound in re.findall(r'eva_cut_seconds_bucket\{le="([\d.]+)"', text):
        assert f'eva_cut_seconds_bucket{{le="{bound}"}}' in exposed


# By alert: what comes in, a value each 5 s, that must make it fire within 15 minutes.
FIRES = {
    "EvaNodeDown": 'up{job="eva-broker"} 0x180',
    "EvaLeaseOld": "eva_lease_age_seconds 1x170 9x10",
    "EvaLeaseByHttps": 'eva_lease_requests_total{path="https"} 0+2x180',
    "EvaAuditFailed": 'eva_sessions_ended_total{kind="serial",reason="audit-failed"} 0x170 1x10',
    "EvaDiskSlow": "eva_disk_wait_seconds 0x175 2x5",
    "EvaHostDown": "eva_hosts 2x180; eva_hosts_up 1x180",
    "EvaLoopLate": "eva_loop_lag_seconds 0x100 0.9x80",
    "EvaTcpDisplay": "eva_domains_with_tcp_display 1x180",
    "EvaSignInsRefused": 'eva_requests_refused_total{reason="wrong-credentials"} 0+1x180',
    "EvaTokensRefused": 'eva_tokens_refused_total{typ="eva-consent+jwt",fault="key"} 0x170 3x10',
    "EvaProtocolError": 'eva_sessions_ended_total{kind="graphics",reason="protocol-error"} 0x170 1x10',
    "EvaNodeNearlyFull": 'eva_sessions{kind="serial"} 950x180',
    "EvaProviderDown": 'up{job="eva-provider"} 0x180',
    "EvaProviderMqttDown": "eva_provider_mqtt_up 0x180",
    "EvaAuditChanged": 'eva_provider_conflicts_total{about="anchor"} 1x180',
    "EvaNodeRolledBack": 'eva_provider_refused_total{reason="rolled-back"} 1x170 2x10',
    "EvaConsentsMoved": "eva_provider_consents_moved_total 0x170 1x10",
    "EvaProviderErrors": 'eva_provider_requests_total{endpoint="tenant",status="5xx"} 0x160 10x20',
    "EvaProviderDrops": "eva_provider_dropped_total 0x170 5x10",
}
SLOW = {
    "EvaCutSlow": ("eva_cut_seconds", "0.5"),
    "EvaRevocationSlow": ("eva_provider_revocation_confirmed_seconds", "5.0"),
}


def rule_test(series: list[str], alert: str, fires: bool) -> dict[str, Any]:
    inputs = [{"series": name, "values": values} for name, _, values in (one.partition(" ") for one in series)]
    return {"interval": "5s", "input_series": inputs, "alert_rule_test": [], "promql_expr_test": [query(alert, fires)]}


def query(alert: str, fires: bool) -> dict[str, Any]:
    count = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    samples = [{"labels": "{}", "value": 1}] if fires else []
    return {"expr": count, "eval_time": "15m", "exp_samples": samples}


def slow(metric: str, bound: str, slow_one: str) -> list[str]:
    return [f"{metric}_count 5x170 6x10", f'{metric}_bucket{{le="{bound}"}} {slow_one}']


def test_each_alert_fires_on_what_it_is_for_and_not_on_less(tmp_path: Path) -> None:
    assert {*FIRES, *SLOW} == alerts().keys()
    tests = [rule_test(series.split("; "), alert, True) for alert, series in FIRES.items()]
    for alert, (metric, bound) in SLOW.items():
        tests.append(rule_test(slow(metric, bound, "5x180"), alert, True))
        tests.append(rule_test(slow(metric, bound, "5x170 6x10"), alert, False))
    tests.append(rule_test(["eva_lease_age_seconds 4x180"], "EvaLeaseOld", False))
    few = [
        'eva_provider_requests_total{endpoint="tenant",status="5xx"} 0x160 2x20',
        'eva_provider_requests_total{status="4xx"} 0+9x180',
    ]
    tests.append(rule_test(few, "EvaProviderErrors", False))
    tests.append(rule_test(["eva_hosts 2x180", "eva_hosts_up 2x180"], "EvaHostDown", False))
    path = tmp_path / "rules.yml"
    rules = {"rule_files": [str(CONFIG / "alerts.yml")], "evaluation_interval": "5s", "tests": tests}
    path.write_text(yaml.safe_dump(rules))
    assert "SUCCESS" in promtool("test", "rules", str(path))


class Prometheus:
    """A real one, on loopback, with the shipped configuration but for the ports and a shorter interval."""

    def __init__(self, directory: Path, broker_port: int, provider_port: int) -> None:
        self.port = free_port()
        text = (CONFIG / "prometheus.yml").read_text()
        ours = {
            "127.0.0.1:9464": f"127.0.0.1:{broker_port}",
            "127.0.0.1:9465": f"127.0.0.1:{provider_port}",
            "scrape_interval: 5s": "scrape_interval: 1s",
            "scrape_timeout: 4s": "scrape_timeout: 1s",
            "evaluation_interval: 5s": "evaluation_interval: 1s",
        }
        for old, new in ours.items():
            assert old in text
            text = text.replace(old, new)
        (directory / "prometheus.yml").write_text(text)
        shutil.copy(CONFIG / "alerts.yml", directory)
        self.program = Program(
            [
                "prometheus",
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            directory / "prometheus.log",
        )

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            found = json.loads(answer.read())
        assert found["status"] == "success"
        return found["data"]

    def values(self, expression: str) -> list[float]:
        """Of an instant query, one for each series."""
        return [float(one["value"][1]) for one in self.ask("query", query=expression)["result"]]

    def until(self, expression: str, timeout: float = PATIENCE_S) -> list[float]:
        """Its values once there are any: scrapes come when they come."""
        deadline = time.monotonic() + timeout
        while not (found := self.values(expression)):
            assert time.monotonic() < deadline, (expression, self.program.transcript.tail())
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def prometheus(libvirt_host: LibvirtHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        (node,) = cloud.nodes.values()
        server = Prometheus(tmp_path_factory.mktemp("prometheus"), node.metrics_port, cloud.provider_metrics_port)
        with server.program:
            server.program.transcript.wait_for("Server is ready to receive web requests")
            yield server


def test_a_real_prometheus_scrapes_node_and_provider(prometheus: Prometheus) -> None:
    assert prometheus.until('up{job="eva-broker"} == 1 and on() up{job="eva-provider"} == 1') == [1.0]
    assert prometheus.until("eva_hosts_up > 0") == [1.0]
    (age,) = prometheus.until("eva_lease_age_seconds >= 0")
    assert age < 15
    assert prometheus.until("eva_provider_leases_total > 0")


def test_every_rule_evaluates_and_a_well_node_raises_none(prometheus: Prometheus) -> None:
    prometheus.until("eva_lease_age_seconds >= 0")
    deadline = time.monotonic() + PATIENCE_S
    while True:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        if all(rule["health"] == "ok" for rule in rules) or time.monotonic() > deadline:
            break
        time.sleep(0.2)  # the first evaluation of each group is at a moment of Prometheus' choice
    assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys(alerts(), "ok")
    # a disk that kept a record waiting for more than a second may be a machine that is busy
    assert {rule["name"] for rule in rules if rule["state"] == "firing"} <= {"EvaDiskSlow"}
