"""Metrics that every process has."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client.core import InfoMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric


class BuildInfo(Collector):
    """`PREFIX_build_info{component,python,version} 1`: one name has one set of labels, whoever shows it."""

    def __init__(self, prefix: str, component: str, version: str) -> None:
        self._name = f"{prefix}_build"
        self._labels = {"component": component, "python": platform.python_version(), "version": version}

    def collect(self) -> Iterator[Metric]:
        """One metric."""
        info = InfoMetricFamily(self._name, "Version of the program and of its Python.")
        info.add_metric((), self._labels)
        yield info
