"""Azure's command line as a person uses it, and a transcript of what was typed and said."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
AZ = ROOT / ".lab/azure/bin/az"
PATIENCE = 120.0  # seconds

# what differs from run to run, and what stands for it on the page
_CHANGING = (
    (r'("consentId": )"[\w-]{22}"', r'\1"fM4bXw1tq0mEo3mV4wq2-A"'),
    (r'("virtualMachineUuid": )"[0-9a-f-]{36}"', r'\1"5e0d7b52-0c1f-4d0e-9e0f-7a1f0c2b9d31"'),
    (r'("cutMilliseconds": )[\d.]+', r"\g<1>7.2"),
    (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "2026-01-31T08:55:50.407Z"),
    (r"\bcode [A-Z]{4}-[A-Z]{4}\b", "code BDWP-HQPK"),
)


class Transcript:
    """Sections of typed and said, with the names of the run replaced by names for readers."""

    def __init__(self) -> None:
        self._sections: list[tuple[str, list[str]]] = []
        self._names: list[tuple[str, str]] = []

    def name(self, found: str, shown: str) -> None:
        self._names.append((found, shown))

    def section(self, title: str) -> None:
        self._sections.append((title, []))

    def tell(self, text: str) -> None:
        if text.strip():
            self._sections[-1][1].append(self._for_readers(text.rstrip("\n")))

    def _for_readers(self, text: str) -> str:
        for found, shown in self._names:
            text = text.replace(found, shown)
        for pattern, shown in _CHANGING:
            text = re.sub(pattern, shown, text)
        return text

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Title and text of each."""
        return [(title, "\n".join(lines)) for title, lines in self._sections]

    @property
    def markdown(self) -> str:
        return "\n".join(f"## {title}\n\n```console\n{text}\n```\n" for title, text in self.blocks)


class Az:
    """One person's, in a configuration of its own. `bundle`: the authorities that it trusts."""

    def __init__(self, directory: Path, bundle: Path, transcript: Transcript) -> None:
        self._transcript = transcript
        self._environment = os.environ | {
            "AZURE_CONFIG_DIR": str(directory),
            "REQUESTS_CA_BUNDLE": str(bundle),
            "AZURE_CORE_COLLECT_TELEMETRY": "no",
            "AZURE_CORE_NO_COLOR": "yes",
            # its keyring would be the machine's
            "AZURE_CORE_ENCRYPT_TOKEN_CACHE": "false",
        }

    def run(self, *words: str, expect: int = 0) -> Any:
        """Run it to its end; give the JSON it printed, None for nothing, and its words on standard error where it fails."""
        self._typed(words)
        done = subprocess.run([AZ, *words], capture_output=True, text=True, env=self._environment, timeout=PATIENCE, check=False)
        self._transcript.tell(done.stdout)
        self._transcript.tell(done.stderr)
        assert done.returncode == expect, done.stdout + done.stderr
        if expect:
            return done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start one that waits for somebody; `finish` reads its end."""
        self._typed(words)
        return subprocess.Popen([AZ, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment)

    def said(self, running: subprocess.Popen[str]) -> str:
        """Read its next line on standard error."""
        assert running.stderr is not None
        line = running.stderr.readline()
        self._transcript.tell(line)
        return line

    def finish(self, running: subprocess.Popen[str]) -> Any:
        out, err = running.communicate(timeout=PATIENCE)
        self._transcript.tell(out)
        self._transcript.tell(err)
        assert running.returncode == 0, out + err
        return json.loads(out)

    def _typed(self, words: Sequence[str]) -> None:
        self._transcript.tell(f"$ az {shlex.join(words)}")
